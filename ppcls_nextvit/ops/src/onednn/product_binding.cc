// The product of matrices as Paddle's operators, without and with a bias, with their gradients. Shapes
// and types are checked by the Python file that calls them.
#include <cstring>

#include "guarded.h"
#include "paddle/extension.h"
#include "product.h"

namespace {

using paddle::Tensor;
using Sizes = std::vector<int64_t>;

// left [..., R, I] and right [..., I, C], or transposed; one of them, a matrix, may be shared by all.
nextvit::Product product_of(const Tensor& left, const Tensor& right, bool left_transposed,
                            bool right_transposed, bool bfloat16) {
  const Sizes a = left.shape(), b = right.shape();
  const size_t m = a.size(), n = b.size();
  nextvit::Product of{1,
                      a[m - 2 + left_transposed],
                      a[m - 1 - left_transposed],
                      b[n - 1 - right_transposed],
                      left_transposed,
                      right_transposed,
                      m < n,
                      n < m,
                      bfloat16};
  const Sizes& longer = m < n ? b : a;
  for (size_t axis = 0; axis + 2 < longer.size(); ++axis) of.batch *= longer[axis];
  if (of.right_shared && !left_transposed) {  // one product of many rows
    of.rows *= of.batch;
    of.batch = 1;
    of.right_shared = false;
  }
  return of;
}

Tensor forward(const Tensor& left, const Tensor& right, const Tensor* bias, bool left_transposed,
               bool right_transposed, bool bfloat16) {
  const auto of = product_of(left, right, left_transposed, right_transposed, bfloat16);
  Sizes sizes = left.shape().size() < right.shape().size() ? right.shape() : left.shape();
  const Sizes a = left.shape(), b = right.shape();
  sizes[sizes.size() - 2] = a[a.size() - 2 + left_transposed];
  sizes[sizes.size() - 1] = b[b.size() - 1 - right_transposed];
  Tensor out = paddle::empty(sizes, left.dtype(), left.place());
  if (out.numel())
    guarded([&] {
      nextvit::product(of, left.data<float>(), right.data<float>(), bias ? bias->data<float>() : nullptr,
                       out.data<float>());
    });
  return out;
}

// Gradients that are not wanted are memory that nobody reads.
std::vector<Tensor> backward(const Tensor& left, const Tensor& right, const Tensor* bias,
                             const Tensor& given_grad, bool left_transposed, bool right_transposed,
                             bool bfloat16, bool for_left, bool for_right, bool for_bias) {
  const Tensor grad = given_grad.contiguous();  // Paddle passes on views as they are
  const auto of = product_of(left, right, left_transposed, right_transposed, bfloat16);
  std::vector<Tensor> grads{paddle::empty(left.shape(), left.dtype(), left.place()),
                            paddle::empty(right.shape(), left.dtype(), left.place())};
  if (bias) grads.push_back(paddle::empty(bias->shape(), left.dtype(), left.place()));
  if (!grad.numel()) {
    for (Tensor& empty : grads) std::memset(empty.data<float>(), 0, empty.numel() * sizeof(float));
    return grads;
  }
  guarded([&] {
    nextvit::product_backward(of, left.data<float>(), right.data<float>(), grad.data<float>(),
                              for_left ? grads[0].data<float>() : nullptr,
                              for_right ? grads[1].data<float>() : nullptr);
    if (for_bias) nextvit::sum_rows(grad.data<float>(), of.batch * of.rows, of.columns, grads[2].data<float>());
  });
  return grads;
}

std::vector<Tensor> plain_forward(const Tensor& left, const Tensor& right, bool left_transposed,
                                  bool right_transposed, bool bfloat16, bool, bool, bool) {
  return {forward(left, right, nullptr, left_transposed, right_transposed, bfloat16)};
}

std::vector<Tensor> plain_backward(const Tensor& left, const Tensor& right, const Tensor& grad,
                                   bool left_transposed, bool right_transposed, bool bfloat16,
                                   bool for_left, bool for_right, bool) {
  return backward(left, right, nullptr, grad, left_transposed, right_transposed, bfloat16, for_left,
                  for_right, false);
}

std::vector<Tensor> bias_forward(const Tensor& left, const Tensor& right, const Tensor& bias,
                                 bool left_transposed, bool right_transposed, bool bfloat16, bool, bool,
                                 bool) {
  return {forward(left, right, &bias, left_transposed, right_transposed, bfloat16)};
}

std::vector<Tensor> bias_backward(const Tensor& left, const Tensor& right, const Tensor& bias,
                                  const Tensor& grad, bool left_transposed, bool right_transposed,
                                  bool bfloat16, bool for_left, bool for_right, bool for_bias) {
  return backward(left, right, &bias, grad, left_transposed, right_transposed, bfloat16, for_left,
                  for_right, for_bias);
}

std::vector<std::string> attributes() {
  return {"left_transposed: bool", "right_transposed: bool", "bfloat16: bool",
          "for_left: bool",        "for_right: bool",        "for_bias: bool"};
}

}  // namespace

PD_BUILD_OP(nextvit_product)
    .Inputs({"left", "right"})
    .Outputs({"out"})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(plain_forward));

PD_BUILD_GRAD_OP(nextvit_product)
    .Inputs({"left", "right", paddle::Grad("out")})
    .Outputs({paddle::Grad("left"), paddle::Grad("right")})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(plain_backward));

PD_BUILD_OP(nextvit_product_bias)
    .Inputs({"left", "right", "bias"})
    .Outputs({"out"})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(bias_forward));

PD_BUILD_GRAD_OP(nextvit_product_bias)
    .Inputs({"left", "right", "bias", paddle::Grad("out")})
    .Outputs({paddle::Grad("left"), paddle::Grad("right"), paddle::Grad("bias")})
    .Attrs(attributes())
    .SetKernelFn(PD_KERNEL(bias_backward));
