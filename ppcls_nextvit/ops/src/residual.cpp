// See residual.h; it takes as long as memory does, whatever the instructions.
#include "residual.h"

#include <algorithm>

namespace nextvit {
namespace {

constexpr int64_t PART = 1 << 14;  // elements of a task

// task(scale, first, count) for every part of every image.
template <class Task>
void in_parts(const Residual& of, const Task& task) {
  const int64_t parts = (of.size + PART - 1) / PART;
#pragma omp parallel for schedule(static)
  for (int64_t number = 0; number < of.batch * parts; ++number) {
    const int64_t image = number / parts, begin = number % parts * PART;
    task(of.scale[image], image * of.size + begin, std::min(PART, of.size - begin));
  }
}

void add(float scale, int64_t count, const float* __restrict x, const float* __restrict branch,
         float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] + scale * branch[i];
}

void pass_on(float scale, int64_t count, const float* __restrict grad, float* __restrict grad_x,
             float* __restrict grad_branch) {
  for (int64_t i = 0; i < count; ++i) {
    grad_x[i] = grad[i];
    grad_branch[i] = scale * grad[i];
  }
}

}  // namespace

void residual_forward(const Residual& of, const float* x, const float* branch, float* out) {
  in_parts(of, [&](float scale, int64_t first, int64_t count) {
    add(scale, count, x + first, branch + first, out + first);
  });
}

void residual_backward(const Residual& of, const float* grad, float* grad_x, float* grad_branch) {
  in_parts(of, [&](float scale, int64_t first, int64_t count) {
    pass_on(scale, count, grad + first, grad_x + first, grad_branch + first);
  });
}

}  // namespace nextvit
