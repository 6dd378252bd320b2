// Tasks, threads and the choice of an instruction set; see attention.h.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "kernels.h"
#include "threads.h"

namespace nextvit {
namespace {

constexpr int64_t MOST_CHUNKS = 16;     // of a head: sums for each are kept
constexpr int64_t LEAST_CHUNK = 512;    // tokens: with their keys and values in the second cache

template <class T>
Plan plan_of(const Problem<T>& problem, const Kernels<T>& kernels) {
  Plan plan;
  plan.tokens = problem.height * problem.width;
  plan.places = int64_t(problem.window) * problem.window;
  plan.reach = problem.window / 2 * (problem.width + 1);
  const int64_t chunk =
      std::max({LEAST_CHUNK, 4 * problem.width, up(plan.tokens, MOST_CHUNKS) / MOST_CHUNKS});
  plan.chunk = up(std::clamp<int64_t>(plan.tokens, 1, chunk), kernels.tile);
  plan.chunks = up(plan.tokens, plan.chunk) / plan.chunk;
  plan.padded_dim = up(problem.dim, kernels.lanes);
  plan.row = up(plan.tokens, kernels.tile) + 2 * plan.reach;
  return plan;
}

// The zeros before the first token and after the last one of a row of shares.
template <class T>
void clear_ends(const Problem<T>& problem, const Plan& plan, T* shares) {
  const int64_t rows = problem.batch * problem.heads * 2 * plan.places;
  for (int64_t row = 0; row < rows; ++row) {
    T* const begin = shares + row * plan.row;
    std::fill(begin, begin + plan.reach, T(0));
    std::fill(begin + plan.row - plan.reach, begin + plan.row, T(0));
  }
}

// Of a head: the chunks' sums, in their order, to the parameters.
template <class T>
void add_sums(const Problem<T>& problem, const Plan& plan, const Gradients<T>& gradients, const T* sums,
              int64_t head) {
  const int64_t dim = problem.dim, places = plan.places;
  T* const embedding = gradients.embedding + head * dim;
  T* const local = gradients.local_bias + head * places;
  T* const own = gradients.token_bias + head * places;
  T* const tokens = gradients.tokens + head * dim * places;
  std::fill(embedding, embedding + dim, T(0));
  std::fill(local, local + places, T(0));
  std::fill(own, own + places, T(0));
  std::fill(tokens, tokens + dim * places, T(0));
  gradients.temperature[head] = 0;
  for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
    const T* const part = sums + (chunk * problem.heads + head) * sums_size(plan);
    const T* const biases = part + plan.padded_dim;
    const T* const token_sums = biases + 2 * places;
    for (int64_t d = 0; d < dim; ++d) embedding[d] += part[d];
    for (int64_t z = 0; z < places; ++z) {
      local[z] += biases[z];
      own[z] += biases[places + z];
      for (int64_t d = 0; d < dim; ++d) tokens[d * places + z] += token_sums[z * plan.padded_dim + d];
    }
    gradients.temperature[head] += part[sums_size(plan) - 1];
  }
}

// Of an image and head: the chunks' sums to the pooled keys, through their division by their length,
// and values.
template <class T>
void add_pooled(const Problem<T>& problem, const Plan& plan, const Gradients<T>& gradients,
                const T* pooled, int64_t image, int64_t head) {
  const int64_t dim = problem.dim, channels = problem.heads * dim;
  for (int64_t p = 0; p < problem.pooled; ++p) {
    const int64_t place = (image * problem.pooled + p) * 2 * channels + head * dim;
    T* const grads[] = {gradients.pooled_kv + place, gradients.pooled_kv + place + channels};
    for (int part = 0; part < 2; ++part) {
      std::fill(grads[part], grads[part] + dim, T(0));
      for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
        const int64_t task = (chunk * problem.batch + image) * problem.heads + head;
        const T* const sums = pooled + ((task * 2 + part) * problem.pooled + p) * plan.padded_dim;
        for (int64_t d = 0; d < dim; ++d) grads[part][d] += sums[d];
      }
    }
    if (!problem.unit) continue;
    const T* const key = problem.pooled_kv + place;
    T square = 0, along = 0;
    for (int64_t d = 0; d < dim; ++d) square += key[d] * key[d];
    const T scale = T(1) / std::sqrt(std::max(square, T(1e-24)));
    for (int64_t d = 0; d < dim; ++d) along += key[d] * scale * grads[0][d];
    if (square < T(1e-24)) along = 0;
    for (int64_t d = 0; d < dim; ++d) grads[0][d] = (grads[0][d] - key[d] * scale * along) * scale;
  }
}

}  // namespace

template <class T>
void attention_forward(const Problem<T>& problem, T* out, Isa isa) {
  const Kernels<T> kernels = kernels_of<T>(isa);
  if (problem.batch * problem.heads * problem.height * problem.width == 0) return;
  const Plan plan = plan_of(problem, kernels);
  const int64_t count = problem.batch * problem.heads * plan.chunks;
  in_threads<T>(count, kernels.workspace(problem, plan), [&](int64_t number, T* workspace) {
    const int64_t chunk = number % plan.chunks, row = number / plan.chunks;
    kernels.forward(problem, plan, workspace, out, row / problem.heads, row % problem.heads, chunk);
  });
}

template <class T>
void attention_backward(const Problem<T>& problem, const Gradients<T>& gradients, Isa isa) {
  const Kernels<T> kernels = kernels_of<T>(isa);
  Plan plan = plan_of(problem, kernels);
  const int64_t rows = problem.batch * problem.heads;
  if (rows * plan.tokens == 0) plan.chunks = 0;
  const Memory<T> shares = memory<T>(rows * 2 * plan.places * plan.row);
  const Memory<T> pooled = memory<T>(plan.chunks * rows * 2 * problem.pooled * plan.padded_dim);
  const Memory<T> sums = memory<T>(plan.chunks * problem.heads * sums_size(plan));
  const Shared<T> shared{shares.get(), pooled.get(), sums.get()};
  clear_ends(problem, plan, shared.shares);
  const int64_t size = kernels.workspace(problem, plan);
  if (plan.chunks) {
    in_threads<T>(problem.heads * plan.chunks, size, [&](int64_t number, T* workspace) {
      kernels.backward(problem, gradients, plan, shared, workspace, number / plan.chunks,
                       number % plan.chunks);
    });
    in_threads<T>(rows * plan.chunks, size, [&](int64_t number, T* workspace) {
      const int64_t chunk = number % plan.chunks, row = number / plan.chunks;
      kernels.backward_kv(problem, gradients, plan, shared, workspace, row / problem.heads,
                          row % problem.heads, chunk);
    });
  }
  for (int64_t head = 0; head < problem.heads; ++head) {
    add_sums(problem, plan, gradients, shared.sums, head);
    for (int64_t image = 0; image < problem.batch; ++image)
      add_pooled(problem, plan, gradients, shared.pooled, image, head);
  }
  if (!problem.batch)  // no image has written it
    std::fill(gradients.position_bias,
              gradients.position_bias + problem.heads * plan.tokens * problem.pooled, T(0));
}

template void attention_forward(const Problem<float>&, float*, Isa);
template void attention_forward(const Problem<double>&, double*, Isa);
template void attention_backward(const Problem<float>&, const Gradients<float>&, Isa);
template void attention_backward(const Problem<double>&, const Gradients<double>&, Isa);

}  // namespace nextvit
