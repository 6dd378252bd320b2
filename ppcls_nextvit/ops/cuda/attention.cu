// Launching aggregated attention; see operators.h.
#include <algorithm>

#include "attention_backward.h"
#include "checks.h"
#include "operators.h"
#include "of_type.h"

namespace nextvit_cuda {
namespace {

constexpr int64_t CHUNK = 256;        // queries that one thread adds up
constexpr int64_t MOST_CHUNKS = 256;  // whose sums are kept

struct Sizes {
  int64_t batch, heads, dim, height, width, pooled, window, unit;

  int64_t n() const { return height * width; }
  int64_t places() const { return window * window; }
  int64_t queries() const { return batch * heads * n(); }
  int64_t chunks(int64_t count) const {
    return std::min(MOST_CHUNKS, std::max<int64_t>((count + CHUNK - 1) / CHUNK, 1));
  }
};

constexpr int INPUTS = 10, GRADS = 9;

// 0 or a Refusal; counts: elements of every input.
int check(const int64_t* given, Sizes* sizes, int64_t* counts) {
  if (!given) return NO_POINTER;
  for (int i = 0; i < 8; ++i)
    if (given[i] < 0) return NEGATIVE_SIZE;
  const auto [batch, heads, dim, height, width, pooled, window, unit] = Sizes{
      given[0], given[1], given[2], given[3], given[4], given[5], given[6], given[7]};
  if (window != 3 && window != 5 && window != 7) return WINDOW;
  if (dim < 1 || dim > CAPACITY) return DIM;
  *sizes = {batch, heads, dim, height, width, pooled, window, unit};
  const int64_t places = window * window;
  const int64_t found[INPUTS] = {product(batch, height, width, heads, dim),
                                 product(batch, height, width, heads, dim, 2),
                                 product(batch, pooled, heads, dim, 2),
                                 product(heads, dim),
                                 heads,
                                 product(height, width),
                                 product(heads, places),
                                 product(heads, height, width, pooled),
                                 product(heads, dim, places),
                                 product(heads, places)};
  std::copy(found, found + INPUTS, counts);
  for (const int64_t count : found)
    if (count < 0) return TOO_LARGE;
  // what a thread's number is made of, and the workspace
  if (product(batch, heads, height, width, places) < 0) return TOO_LARGE;
  return product(batch, heads, std::max<int64_t>(pooled, 1), MOST_CHUNKS, 2, dim) < 0 ? TOO_LARGE : 0;
}

template <class T>
Attention<T> problem_of(const Sizes& s, const void* const* inputs) {
  const auto at = [&](int i) { return static_cast<const T*>(inputs[i]); };
  return {s.batch, s.heads, s.dim, s.height, s.width, s.pooled, static_cast<int>(s.window), s.unit != 0,
          at(0),   at(1),   at(2), at(3),    at(4),   at(5),    at(6), at(7), at(8), at(9)};
}

// The workspace's parts, one after the other from `memory` on, and how many elements they are.
template <class A>
AttentionWorkspace<A> workspace_of(const Sizes& s, A* memory, int64_t* count) {
  int64_t used = 0;
  const auto take = [&](int64_t size) {
    A* const part = memory ? memory + used : nullptr;
    used += size;
    return part;
  };
  AttentionWorkspace<A> found;
  found.pooled_chunks = s.chunks(s.n());
  found.chunks = s.chunks(s.batch * s.n());
  found.statistics = take(3 * s.queries());
  found.scaled_grad = take(s.dim * s.queries());
  found.near_scores = take(s.places() * s.queries());
  found.near_values = take(s.places() * s.queries());
  found.near = take(s.places() * s.queries());
  found.pooled_sums = take(s.batch * s.heads * s.pooled * found.pooled_chunks * 2 * s.dim);
  found.sums = take(s.heads * items_of(s.dim, s.places()) * found.chunks);
  *count = used;
  return found;
}

// The first status that is not 0 ends it.
struct Steps {
  void* stream;
  int status = 0;

  template <class Task>
  void then(int64_t count, const Task& task) {
    if (!status) status = for_each(count, task, stream);
  }
};

template <class T>
int backward(const Sizes& s, const void* const* inputs, const void* out_grad, void* const* grads,
             void* memory, int64_t bytes, void* stream) {
  using A = computed<T>;
  int64_t needed;
  const auto kept = workspace_of(s, static_cast<A*>(memory), &needed);
  if (bytes < needed * int64_t(sizeof(A)) || (needed && !memory)) return WORKSPACE;
  const auto at = [&](int i) { return static_cast<T*>(grads[i]); };
  const AttentionStep<T> step{
      problem_of<T>(s, inputs),
      {static_cast<const T*>(out_grad), at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8)},
      kept};
  const int64_t keys = s.batch * s.heads * s.pooled;
  const int64_t items = s.heads * items_of(s.dim, s.places());
  Steps steps{stream};
  steps.then(s.queries(), QueriesBackward<T>{step});
  steps.then(s.queries(), KeysBackward<T>{step});
  steps.then(s.heads * s.n() * s.pooled, PositionBiasBackward<T>{step});
  steps.then(keys * kept.pooled_chunks, PooledBackward<T>{step});
  steps.then(keys, PooledSums<T>{step});
  steps.then(items * kept.chunks, ParametersBackward<T>{step});
  steps.then(items, ParameterSums<T>{step});
  return steps.status;
}

}  // namespace
}  // namespace nextvit_cuda

using namespace nextvit_cuda;

int nextvit_cuda_attention_forward(int type, const int64_t* given, const void* const* inputs, void* out,
                                   void* stream) {
  Sizes sizes;
  int64_t counts[INPUTS];
  if (const int refusal = check(given, &sizes, counts)) return refusal;
  if (const int refusal = check_arrays(inputs, counts, INPUTS)) return refusal;
  if (counts[0] && !out) return NO_POINTER;
  return of_type(type, [&](auto zero) {
    using T = decltype(zero);
    const AttentionForward<T> task{problem_of<T>(sizes, inputs), static_cast<T*>(out)};
    return for_each(sizes.queries(), task, stream);
  });
}

int nextvit_cuda_attention_workspace(int type, const int64_t* given, int64_t* bytes) {
  Sizes sizes;
  int64_t counts[INPUTS];
  if (const int refusal = check(given, &sizes, counts)) return refusal;
  if (!bytes) return NO_POINTER;
  return of_type(type, [&](auto zero) {
    using A = computed<decltype(zero)>;
    workspace_of<A>(sizes, nullptr, bytes);
    *bytes *= sizeof(A);
    return 0;
  });
}

int nextvit_cuda_attention_backward(int type, const int64_t* given, const void* const* inputs,
                                    const void* out_grad, void* const* grads, void* workspace,
                                    int64_t workspace_bytes, void* stream) {
  Sizes sizes;
  int64_t counts[INPUTS];
  if (const int refusal = check(given, &sizes, counts)) return refusal;
  if (const int refusal = check_arrays(inputs, counts, INPUTS)) return refusal;
  if (counts[0] && !out_grad) return NO_POINTER;
  // the lengths have no gradient
  std::copy(counts + 6, counts + INPUTS, counts + 5);
  if (const int refusal = check_arrays(grads, counts, GRADS)) return refusal;
  return of_type(type, [&](auto zero) {
    return backward<decltype(zero)>(sizes, inputs, out_grad, grads, workspace, workspace_bytes, stream);
  });
}

const char* nextvit_cuda_message(int status) {
  if (status < 0) return message(status);
#ifdef __CUDACC__
  return cudaGetErrorString(static_cast<cudaError_t>(status));
#else
  return status ? "unknown status" : "no error";
#endif
}
