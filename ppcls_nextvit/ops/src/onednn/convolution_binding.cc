// The convolution as Paddle's operators, without and with a bias, and with a ReLU after that, with their
// gradients. Shapes and types
// are checked by the Python file that calls them.
#include <cstring>

#include "convolution.h"
#include "guarded.h"
#include "paddle/extension.h"

namespace {

using paddle::Tensor;
using Pair = std::vector<int64_t>;

nextvit::Convolution convolution_of(const Tensor& x, const Tensor& weight, const Tensor* bias,
                                    const Pair& stride, const Pair& padding, const Pair& dilation,
                                    int64_t groups, bool bfloat16, bool relu = false) {
  const auto sizes = x.shape(), filters = weight.shape();
  const auto pair = [](const Pair& of) { return std::array<int64_t, 2>{of[0], of[1]}; };
  return {sizes[0],          sizes[1],     sizes[2],      sizes[3],       filters[0], groups,
          {filters[2], filters[3]}, pair(stride), pair(padding), pair(dilation), bias != nullptr, bfloat16,
          relu};
}

void zero(Tensor* tensor) { std::memset(tensor->data<float>(), 0, tensor->numel() * sizeof(float)); }

Tensor forward(const Tensor& x, const Tensor& weight, const Tensor* bias, const Pair& stride,
               const Pair& padding, const Pair& dilation, int64_t groups, bool bfloat16,
               bool relu = false) {
  const auto of = convolution_of(x, weight, bias, stride, padding, dilation, groups, bfloat16, relu);
  Tensor out = paddle::empty({of.batch, of.out_channels, of.out_size(0), of.out_size(1)}, x.dtype(), x.place());
  if (out.numel())
    guarded([&] {
      nextvit::convolution_forward(of, x.data<float>(), weight.data<float>(),
                                   bias ? bias->data<float>() : nullptr, out.data<float>());
    });
  return out;
}

// Gradients that are not wanted are memory that nobody reads.
std::vector<Tensor> backward(const Tensor& x, const Tensor& weight, const Tensor* bias,
                             const Tensor& given_grad, const Pair& stride, const Pair& padding,
                             const Pair& dilation, int64_t groups, bool bfloat16, bool for_x,
                             bool for_weight) {
  const Tensor grad = given_grad.contiguous();  // Paddle passes on views as they are
  const auto of = convolution_of(x, weight, bias, stride, padding, dilation, groups, bfloat16);
  std::vector<Tensor> grads{paddle::empty(x.shape(), x.dtype(), x.place()),
                            paddle::empty(weight.shape(), x.dtype(), x.place())};
  if (bias) grads.push_back(paddle::empty(bias->shape(), x.dtype(), x.place()));
  if (!grad.numel()) {
    for (Tensor& empty : grads) zero(&empty);
    return grads;
  }
  guarded([&] {
    nextvit::convolution_backward(of, x.data<float>(), weight.data<float>(), grad.data<float>(),
                                  for_x ? grads[0].data<float>() : nullptr,
                                  for_weight ? grads[1].data<float>() : nullptr,
                                  bias ? grads[2].data<float>() : nullptr);
  });
  return grads;
}

std::vector<Tensor> plain_forward(const Tensor& x, const Tensor& weight, const Pair& stride,
                                  const Pair& padding, const Pair& dilation, int64_t groups,
                                  bool bfloat16, bool, bool) {
  return {forward(x, weight, nullptr, stride, padding, dilation, groups, bfloat16)};
}

std::vector<Tensor> plain_backward(const Tensor& x, const Tensor& weight, const Tensor& grad,
                                   const Pair& stride, const Pair& padding, const Pair& dilation,
                                   int64_t groups, bool bfloat16, bool for_x, bool for_weight) {
  return backward(x, weight, nullptr, grad, stride, padding, dilation, groups, bfloat16, for_x, for_weight);
}

std::vector<Tensor> bias_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                 const Pair& stride, const Pair& padding, const Pair& dilation,
                                 int64_t groups, bool bfloat16, bool, bool) {
  return {forward(x, weight, &bias, stride, padding, dilation, groups, bfloat16)};
}

std::vector<Tensor> bias_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                  const Tensor& grad, const Pair& stride, const Pair& padding,
                                  const Pair& dilation, int64_t groups, bool bfloat16, bool for_x,
                                  bool for_weight) {
  return backward(x, weight, &bias, grad, stride, padding, dilation, groups, bfloat16, for_x, for_weight);
}

std::vector<Tensor> relu_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                 const Pair& stride, const Pair& padding, const Pair& dilation,
                                 int64_t groups, bool bfloat16, bool, bool) {
  return {forward(x, weight, &bias, stride, padding, dilation, groups, bfloat16, true)};
}

std::vector<Tensor> relu_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                  const Tensor& out, const Tensor& given_grad, const Pair& stride,
                                  const Pair& padding, const Pair& dilation, int64_t groups,
                                  bool bfloat16, bool for_x, bool for_weight) {
  const Tensor grad = given_grad.contiguous();
  Tensor before = paddle::empty(grad.shape(), grad.dtype(), grad.place());
  nextvit::relu_backward(grad.numel(), out.data<float>(), grad.data<float>(), before.data<float>());
  return backward(x, weight, &bias, before, stride, padding, dilation, groups, bfloat16, for_x, for_weight);
}

std::vector<std::string> attributes() {
  return {"stride: std::vector<int64_t>", "padding: std::vector<int64_t>", "dilation: std::vector<int64_t>",
          "groups: int64_t", "bfloat16: bool", "for_x: bool", "for_weight: bool"};
}

}  // namespace

PD_BUILD_OP(nextvit_conv2d)
    .Inputs({"x", "weight"})
    .Outputs({"out"})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(plain_forward));

PD_BUILD_GRAD_OP(nextvit_conv2d)
    .Inputs({"x", "weight", paddle::Grad("out")})
    .Outputs({paddle::Grad("x"), paddle::Grad("weight")})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(plain_backward));

PD_BUILD_OP(nextvit_conv2d_bias)
    .Inputs({"x", "weight", "bias"})
    .Outputs({"out"})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(bias_forward));

PD_BUILD_GRAD_OP(nextvit_conv2d_bias)
    .Inputs({"x", "weight", "bias", paddle::Grad("out")})
    .Outputs({paddle::Grad("x"), paddle::Grad("weight"), paddle::Grad("bias")})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(bias_backward));

PD_BUILD_OP(nextvit_conv2d_bias_relu)
    .Inputs({"x", "weight", "bias"})
    .Outputs({"out"})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(relu_forward));

PD_BUILD_GRAD_OP(nextvit_conv2d_bias_relu)
    .Inputs({"x", "weight", "bias", "out", paddle::Grad("out")})
    .Outputs({paddle::Grad("x"), paddle::Grad("weight"), paddle::Grad("bias")})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(relu_backward));
