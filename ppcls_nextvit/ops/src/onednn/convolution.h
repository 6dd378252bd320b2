// 2-D convolution in float32 by oneDNN, without Paddle: plain tensors, NCHW and OIHW, in and out.
#pragma once

#include <array>
#include <cstdint>

namespace nextvit {

struct Convolution {
  int64_t batch, in_channels, height, width;  // of the input [B, C, H, W]
  int64_t out_channels, groups;
  // in height and width
  std::array<int64_t, 2> kernel, stride, padding, dilation;
  bool bias;
  bool bfloat16;  // products of values rounded to bfloat16, summed in float32
  bool relu;      // the output is no less than 0

  // Of the output [B, O, H', W'].
  int64_t out_size(int axis) const;
};

// out = x * weight + bias, with `relu` no less than 0. bias: nullptr where there is none.
void convolution_forward(const Convolution& of, const float* x, const float* weight, const float* bias,
                         float* out);

// The gradients for x, weight and bias of what has the gradient `grad` for its output before the ReLU,
// if there is one. grad_x or
// grad_weight: nullptr where it is not wanted; grad_bias comes with grad_weight.
void convolution_backward(const Convolution& of, const float* x, const float* weight, const float* grad,
                          float* grad_x, float* grad_weight, float* grad_bias);

// before [count]: `grad` where `out`, a ReLU's, is above 0, else 0.
void relu_backward(int64_t count, const float* out, const float* grad, float* before);

}  // namespace nextvit
