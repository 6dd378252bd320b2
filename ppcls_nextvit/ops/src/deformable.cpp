// Tasks and threads of multi-scale deformable attention; see deformable.h.
#include "deformable.h"

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace nextvit {
namespace {

constexpr int64_t QUERIES = 32;  // of a task

// The first token of each level.
template <class T>
std::vector<int64_t> starts_of(const DeformableProblem<T>& problem) {
  std::vector<int64_t> starts(problem.levels);
  for (int64_t level = 1; level < problem.levels; ++level)
    starts[level] =
        starts[level - 1] + problem.shapes[2 * level - 2] * problem.shapes[2 * level - 1];
  return starts;
}

}  // namespace

template <class T>
void deformable_forward(const DeformableProblem<T>& problem, T* out, Isa isa) {
  const Kernels<T> kernels = kernels_of<T>(isa);
  if (problem.batch * problem.queries * problem.heads * problem.dim == 0) return;
  const int64_t parts = up(problem.queries, QUERIES) / QUERIES;
  in_threads<T>(problem.batch * parts, kernels.deformable_workspace(problem),
                [&](int64_t number, T* workspace) {
                  const int64_t image = number / parts, first = number % parts * QUERIES;
                  const int64_t last = std::min(first + QUERIES, problem.queries);
                  kernels.sample_forward(problem, workspace, out, image, first, last);
                });
}

template <class T>
void deformable_backward(const DeformableProblem<T>& problem, const DeformableGradients<T>& gradients,
                         Isa isa) {
  const Kernels<T> kernels = kernels_of<T>(isa);
  const std::vector<int64_t> starts = starts_of(problem);
  const int64_t count = problem.batch * problem.heads * problem.levels;
  if (count == 0) return;
  in_threads<T>(count, 0, [&](int64_t number, T*) {
    const int64_t level = number % problem.levels, row = number / problem.levels;
    kernels.sample_backward(problem, gradients, row / problem.heads, row % problem.heads, level,
                            starts[level]);
  });
}

template void deformable_forward(const DeformableProblem<float>&, float*, Isa);
template void deformable_forward(const DeformableProblem<double>&, double*, Isa);
template void deformable_backward(const DeformableProblem<float>&, const DeformableGradients<float>&, Isa);
template void deformable_backward(const DeformableProblem<double>&, const DeformableGradients<double>&,
                                  Isa);

}  // namespace nextvit
