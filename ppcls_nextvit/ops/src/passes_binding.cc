// What is one pass over memory as Paddle's operators: the optimiser's step, the residual branch, heads and
// tokens swapped. Shapes and types are checked by the Python file that calls them.
#include "adamw.h"
#include "guarded.h"
#include "paddle/extension.h"
#include "residual.h"
#include "swap.h"

namespace {

using paddle::Tensor;

void adamw(Tensor& parameter, const Tensor& gradient, const Tensor& rate, Tensor& first, Tensor& second,
           Tensor& beta1_power, Tensor& beta2_power, float beta1, float beta2, float epsilon,
           float decay) {
  float &power1 = *beta1_power.data<float>(), &power2 = *beta2_power.data<float>();
  const float at = *rate.data<float>();
  guarded([&] {
    nextvit::adamw<float>({parameter.numel(), gradient.data<float>(), parameter.data<float>(),
                           first.data<float>(), second.data<float>(), beta1, beta2, epsilon, at * decay,
                           at, power1, power2},
                          nextvit::chosen_isa());
  });
  power1 *= beta1;
  power2 *= beta2;
}

nextvit::Residual residual_of(const Tensor& branch, const Tensor& scale) {
  const int64_t batch = scale.numel();
  return {batch, batch ? branch.numel() / batch : 0, scale.data<float>()};
}

std::vector<Tensor> residual(const Tensor& x, const Tensor& branch, const Tensor& scale) {
  Tensor out = paddle::empty(x.shape(), x.dtype(), x.place());
  nextvit::residual_forward(residual_of(branch, scale), x.data<float>(), branch.data<float>(),
                            out.data<float>());
  return {out};
}

// The gradient of x is the result's own, as a copy: Paddle adds others to it in place.
std::vector<Tensor> residual_backward(const Tensor& scale, const Tensor& given_grad) {
  const Tensor grad = given_grad.contiguous();  // Paddle passes on views as they are
  std::vector<Tensor> grads{paddle::empty(grad.shape(), grad.dtype(), grad.place()),
                            paddle::empty(grad.shape(), grad.dtype(), grad.place())};
  nextvit::residual_backward(residual_of(grad, scale), grad.data<float>(), grads[0].data<float>(),
                             grads[1].data<float>());
  return grads;
}

std::vector<Tensor> swap(const Tensor& given) {
  const Tensor x = given.contiguous();
  const auto sizes = x.shape();
  Tensor out = paddle::empty({sizes[0], sizes[2], sizes[1], sizes[3]}, x.dtype(), x.place());
  nextvit::swap(sizes[0], sizes[1], sizes[2], sizes[3], x.data<float>(), out.data<float>());
  return {out};
}

}  // namespace

PD_BUILD_OP(nextvit_adamw)
    .Inputs({"parameter", "gradient", "rate", "first", "second", "beta1_power", "beta2_power"})
    .Outputs({"new_parameter", "new_first", "new_second", "new_beta1_power", "new_beta2_power"})
    .SetInplaceMap({{"parameter", "new_parameter"},
                    {"first", "new_first"},
                    {"second", "new_second"},
                    {"beta1_power", "new_beta1_power"},
                    {"beta2_power", "new_beta2_power"}})
    .Attrs({"beta1: float", "beta2: float", "epsilon: float", "decay: float"})
    .SetKernelFn(PD_KERNEL(adamw));

PD_BUILD_OP(nextvit_residual)
    .Inputs({"x", "branch", "scale"})
    .Outputs({"out"})
    .SetKernelFn(PD_KERNEL(residual));

PD_BUILD_GRAD_OP(nextvit_residual)
    .Inputs({"scale", paddle::Grad("out")})
    .Outputs({paddle::Grad("x"), paddle::Grad("branch")})
    .SetKernelFn(PD_KERNEL(residual_backward));

PD_BUILD_OP(nextvit_swap).Inputs({"x"}).Outputs({"out"}).SetKernelFn(PD_KERNEL(swap));

PD_BUILD_GRAD_OP(nextvit_swap)
    .Inputs({paddle::Grad("out")})
    .Outputs({paddle::Grad("x")})
    .SetKernelFn(PD_KERNEL(swap));
