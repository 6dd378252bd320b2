// A residual branch with stochastic depth (Huang et al. 2016, arXiv:1603.09382) on a CPU, in one pass.
#pragma once

#include <cstdint>

namespace nextvit {

struct Residual {
  int64_t batch, size;  // images, and elements of each
  const float* scale;   // [batch]: 0, or what makes up for the branches that are dropped
};

// out = x + scale * branch
void residual_forward(const Residual& of, const float* x, const float* branch, float* out);

void residual_backward(const Residual& of, const float* grad, float* grad_x, float* grad_branch);

}  // namespace nextvit
