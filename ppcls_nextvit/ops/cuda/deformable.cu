// Launching multi-scale deformable attention; see operators.h.
#include <algorithm>

#include "checks.h"
#include "deformable.h"
#include "operators.h"
#include "of_type.h"

namespace nextvit_cuda {
namespace {

struct Sizes {
  int64_t batch, tokens, queries, heads, dim, levels, points;

  int64_t items() const { return batch * queries * heads; }
  int64_t samples() const { return items() * levels * points; }
};

constexpr int INPUTS = 3;

// 0 or a Refusal; counts: elements of every input.
int check(const int64_t* given, Sizes* sizes, int64_t* counts) {
  if (!given) return NO_POINTER;
  for (int i = 0; i < 7; ++i)
    if (given[i] < 0) return NEGATIVE_SIZE;
  const auto [batch, tokens, queries, heads, dim, levels, points] =
      Sizes{given[0], given[1], given[2], given[3], given[4], given[5], given[6]};
  if (levels < 1 || levels > MOST_LEVELS) return LEVELS;
  *sizes = {batch, tokens, queries, heads, dim, levels, points};
  counts[0] = product(batch, tokens, heads, dim);
  counts[1] = product(batch, queries, heads, levels, points, 2);
  counts[2] = product(batch, queries, heads, levels, points);
  const bool large = product(batch, queries, heads, dim) < 0 || *std::min_element(counts, counts + INPUTS) < 0;
  return large ? TOO_LARGE : 0;
}

template <class T>
int problem_of(const Sizes& s, const int64_t* shapes, const void* const* inputs, Deformable<T>* to) {
  if (!shapes) return NO_POINTER;
  Deformable<T> found{};
  found.batch = s.batch;
  found.tokens = s.tokens;
  found.queries = s.queries;
  found.heads = s.heads;
  found.dim = s.dim;
  found.levels = s.levels;
  found.points = s.points;
  int64_t cells = 0;
  for (int64_t level = 0; level < s.levels; ++level) {
    const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
    if (height < 1 || width < 1 || product(height, width) < 0) return CELLS;
    found.heights[level] = height;
    found.widths[level] = width;
    found.starts[level] = cells;
    cells += height * width;
  }
  if (cells != s.tokens) return CELLS;
  found.value = static_cast<const T*>(inputs[0]);
  found.locations = static_cast<const T*>(inputs[1]);
  found.weights = static_cast<const T*>(inputs[2]);
  *to = found;
  return 0;
}

template <class T>
int backward(const Sizes& s, const Deformable<T>& problem, const T* grad, void* const* grads, void* memory,
             int64_t bytes, void* stream) {
  using A = computed<T>;
  const int64_t values = s.batch * s.tokens * s.heads * s.dim;
  if (bytes < values * int64_t(sizeof(A)) || (values && !memory)) return WORKSPACE;
  A* const sums = static_cast<A*>(memory);
  const DeformableStep<T> step{problem};
  int status = for_each(values, Clear<A>{sums}, stream);
  if (!status) status = for_each(s.items() * s.dim, ValuesBackward<T>{step, grad, sums}, stream);
  if (!status) status = for_each(values, Store<A, T>{sums, static_cast<T*>(grads[0])}, stream);
  const SamplesBackward<T> samples{step, grad, static_cast<T*>(grads[1]), static_cast<T*>(grads[2])};
  return status ? status : for_each(s.samples(), samples, stream);
}

}  // namespace
}  // namespace nextvit_cuda

using namespace nextvit_cuda;

int nextvit_cuda_deformable_forward(int type, const int64_t* given, const int64_t* shapes,
                                    const void* const* inputs, void* out, void* stream) {
  Sizes sizes;
  int64_t counts[INPUTS];
  if (const int refusal = check(given, &sizes, counts)) return refusal;
  if (const int refusal = check_arrays(inputs, counts, INPUTS)) return refusal;
  const int64_t results = sizes.items() * sizes.dim;
  if (results && !out) return NO_POINTER;
  return of_type(type, [&](auto zero) {
    using T = decltype(zero);
    Deformable<T> problem;
    if (const int refusal = problem_of<T>(sizes, shapes, inputs, &problem)) return refusal;
    return for_each(results, DeformableForward<T>{{problem}, static_cast<T*>(out)}, stream);
  });
}

int nextvit_cuda_deformable_workspace(int type, const int64_t* given, int64_t* bytes) {
  Sizes sizes;
  int64_t counts[INPUTS];
  if (const int refusal = check(given, &sizes, counts)) return refusal;
  if (!bytes) return NO_POINTER;
  return of_type(type, [&](auto zero) {
    *bytes = counts[0] * int64_t(sizeof(computed<decltype(zero)>));
    return 0;
  });
}

int nextvit_cuda_deformable_backward(int type, const int64_t* given, const int64_t* shapes,
                                     const void* const* inputs, const void* out_grad, void* const* grads,
                                     void* workspace, int64_t workspace_bytes, void* stream) {
  Sizes sizes;
  int64_t counts[INPUTS];
  if (const int refusal = check(given, &sizes, counts)) return refusal;
  if (const int refusal = check_arrays(inputs, counts, INPUTS)) return refusal;
  if (const int refusal = check_arrays(grads, counts, INPUTS)) return refusal;
  if (sizes.items() * sizes.dim != 0 && !out_grad) return NO_POINTER;
  return of_type(type, [&](auto zero) {
    using T = decltype(zero);
    Deformable<T> problem;
    if (const int refusal = problem_of<T>(sizes, shapes, inputs, &problem)) return refusal;
    return backward(sizes, problem, static_cast<const T*>(out_grad), grads, workspace, workspace_bytes,
                    stream);
  });
}
