// The operators as Paddle's, with their gradients. Shapes and types are checked by the Python files
// that call them.
#include "attention.h"
#include "deformable.h"
#include "guarded.h"
#include "paddle/extension.h"
#include "position_bias.h"

namespace {

using paddle::Tensor;

// The inputs, in the order of the operator.
struct Inputs {
  const Tensor &q, &kv, &pooled_kv, &embedding, &temperature, &lengths;
  const Tensor &local_bias, &position_bias, &tokens, &token_bias;
};

template <class T>
nextvit::Problem<T> problem_of(const Inputs& of, int64_t height, int64_t width, int64_t window, bool unit) {
  const auto heads = of.embedding.shape()[0], dim = of.embedding.shape()[1];
  return {of.q.shape()[0],
          heads,
          dim,
          height,
          width,
          of.pooled_kv.shape()[1],
          static_cast<int>(window),
          unit,
          of.q.data<T>(),
          of.kv.data<T>(),
          of.pooled_kv.data<T>(),
          of.embedding.data<T>(),
          of.temperature.data<T>(),
          of.lengths.data<T>(),
          of.local_bias.data<T>(),
          of.position_bias.data<T>(),
          of.tokens.data<T>(),
          of.token_bias.data<T>()};
}

template <class T>
void forward_as(const Inputs& of, int64_t height, int64_t width, int64_t window, bool unit, Tensor* out) {
  nextvit::attention_forward(problem_of<T>(of, height, width, window, unit), out->data<T>(),
                             nextvit::chosen_isa());
}

template <class T>
void backward_as(const Inputs& of, const Tensor& grad, int64_t height, int64_t width, int64_t window,
                 bool unit, std::vector<Tensor>* grads) {
  const auto at = [&](int i) { return (*grads)[i].data<T>(); };
  nextvit::attention_backward<T>(
      problem_of<T>(of, height, width, window, unit),
      {grad.data<T>(), at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8)},
      nextvit::chosen_isa());
}

std::vector<Tensor> forward(const Tensor& q, const Tensor& kv, const Tensor& pooled_kv,
                            const Tensor& embedding, const Tensor& temperature, const Tensor& lengths,
                            const Tensor& local_bias, const Tensor& position_bias, const Tensor& tokens,
                            const Tensor& token_bias, int64_t height, int64_t width, int64_t window,
                            bool unit) {
  const Inputs inputs{q,       kv,         pooled_kv,     embedding, temperature,
                      lengths, local_bias, position_bias, tokens,    token_bias};
  Tensor out = paddle::empty(q.shape(), q.dtype(), q.place());
  guarded([&] {
    if (q.dtype() == paddle::DataType::FLOAT64)
      forward_as<double>(inputs, height, width, window, unit, &out);
    else
      forward_as<float>(inputs, height, width, window, unit, &out);
  });
  return {out};
}

std::vector<Tensor> backward(const Tensor& q, const Tensor& kv, const Tensor& pooled_kv,
                             const Tensor& embedding, const Tensor& temperature, const Tensor& lengths,
                             const Tensor& local_bias, const Tensor& position_bias, const Tensor& tokens,
                             const Tensor& token_bias, const Tensor& given_grad, int64_t height,
                             int64_t width, int64_t window, bool unit) {
  const Tensor grad = given_grad.contiguous();  // Paddle passes on views as they are
  const Inputs inputs{q,       kv,         pooled_kv,     embedding, temperature,
                      lengths, local_bias, position_bias, tokens,    token_bias};
  std::vector<Tensor> grads;
  for (const Tensor* input : {&q, &kv, &pooled_kv, &embedding, &temperature, &local_bias, &position_bias,
                              &tokens, &token_bias})
    grads.push_back(paddle::empty(input->shape(), input->dtype(), input->place()));
  guarded([&] {
    if (q.dtype() == paddle::DataType::FLOAT64)
      backward_as<double>(inputs, grad, height, width, window, unit, &grads);
    else
      backward_as<float>(inputs, grad, height, width, window, unit, &grads);
  });
  return grads;
}

template <class T>
nextvit::PositionProblem<T> position_problem_of(const Tensor& rows, const Tensor& columns,
                                                const Tensor& row_index, const Tensor& column_index,
                                                const Tensor& weight_1, const Tensor& bias_1,
                                                const Tensor& weight_2, const Tensor& bias_2) {
  return {weight_2.shape()[1],
          weight_2.shape()[0],
          rows.shape()[0],
          columns.shape()[0],
          row_index.shape()[0],
          column_index.shape()[0],
          row_index.shape()[1],
          column_index.shape()[1],
          rows.data<T>(),
          columns.data<T>(),
          row_index.data<int64_t>(),
          column_index.data<int64_t>(),
          weight_1.data<T>(),
          bias_1.data<T>(),
          weight_2.data<T>(),
          bias_2.data<T>()};
}

std::vector<Tensor> position_forward(const Tensor& rows, const Tensor& columns, const Tensor& row_index,
                                     const Tensor& column_index, const Tensor& weight_1,
                                     const Tensor& bias_1, const Tensor& weight_2,
                                     const Tensor& bias_2) {
  const int64_t queries = row_index.shape()[0] * column_index.shape()[0];
  const int64_t keys = row_index.shape()[1] * column_index.shape()[1];
  Tensor out = paddle::empty({weight_2.shape()[1], queries, keys}, weight_2.dtype(), weight_2.place());
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    nextvit::position_bias_forward(
        position_problem_of<T>(rows, columns, row_index, column_index, weight_1, bias_1, weight_2, bias_2),
        out.data<T>(), nextvit::chosen_isa());
  };
  guarded([&] { weight_2.dtype() == paddle::DataType::FLOAT64 ? run(double{}) : run(float{}); });
  return {out};
}

std::vector<Tensor> position_backward(const Tensor& rows, const Tensor& columns, const Tensor& row_index,
                                      const Tensor& column_index, const Tensor& weight_1,
                                      const Tensor& bias_1, const Tensor& weight_2, const Tensor& bias_2,
                                      const Tensor& given_grad) {
  const Tensor grad = given_grad.contiguous();
  std::vector<Tensor> grads;
  for (const Tensor* input : {&weight_1, &bias_1, &weight_2, &bias_2})
    grads.push_back(paddle::empty(input->shape(), input->dtype(), input->place()));
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    nextvit::position_bias_backward<T>(
        position_problem_of<T>(rows, columns, row_index, column_index, weight_1, bias_1, weight_2, bias_2),
        {grad.data<T>(), grads[0].data<T>(), grads[1].data<T>(), grads[2].data<T>(), grads[3].data<T>()},
        nextvit::chosen_isa());
  };
  guarded([&] { weight_2.dtype() == paddle::DataType::FLOAT64 ? run(double{}) : run(float{}); });
  return grads;
}

template <class T>
nextvit::DeformableProblem<T> deformable_problem_of(const Tensor& value, const Tensor& locations,
                                                    const Tensor& weights,
                                                    const std::vector<int64_t>& shapes) {
  return {value.shape()[0],     value.shape()[1],   locations.shape()[1],
          value.shape()[2],     value.shape()[3],   locations.shape()[3],
          locations.shape()[4], shapes.data(),      value.data<T>(),
          locations.data<T>(),  weights.data<T>()};
}

std::vector<Tensor> deformable_forward(const Tensor& value, const Tensor& locations,
                                       const Tensor& weights, const std::vector<int64_t>& shapes) {
  const int64_t channels = value.shape()[2] * value.shape()[3];
  Tensor out = paddle::empty({value.shape()[0], locations.shape()[1], channels}, value.dtype(), value.place());
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    nextvit::deformable_forward(deformable_problem_of<T>(value, locations, weights, shapes),
                                out.data<T>(), nextvit::chosen_isa());
  };
  guarded([&] { value.dtype() == paddle::DataType::FLOAT64 ? run(double{}) : run(float{}); });
  return {out};
}

std::vector<Tensor> deformable_backward(const Tensor& value, const Tensor& locations,
                                        const Tensor& weights, const Tensor& given_grad,
                                        const std::vector<int64_t>& shapes) {
  const Tensor grad = given_grad.contiguous();
  std::vector<Tensor> grads;
  for (const Tensor* input : {&value, &locations, &weights})
    grads.push_back(paddle::empty(input->shape(), input->dtype(), input->place()));
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    nextvit::deformable_backward<T>(
        deformable_problem_of<T>(value, locations, weights, shapes),
        {grad.data<T>(), grads[0].data<T>(), grads[1].data<T>(), grads[2].data<T>()},
        nextvit::chosen_isa());
  };
  guarded([&] { value.dtype() == paddle::DataType::FLOAT64 ? run(double{}) : run(float{}); });
  return grads;
}

}  // namespace

PD_BUILD_OP(nextvit_aggregated_attention)
    .Inputs({"q", "kv", "pooled_kv", "embedding", "temperature", "lengths", "local_bias",
             "position_bias", "tokens", "token_bias"})
    .Outputs({"out"})
    .Attrs({"height: int64_t", "width: int64_t", "window: int64_t", "unit: bool"})
    .SetKernelFn(PD_KERNEL(forward));

PD_BUILD_GRAD_OP(nextvit_aggregated_attention)
    .Inputs({"q", "kv", "pooled_kv", "embedding", "temperature", "lengths", "local_bias",
             "position_bias", "tokens", "token_bias", paddle::Grad("out")})
    .Outputs({paddle::Grad("q"), paddle::Grad("kv"), paddle::Grad("pooled_kv"),
              paddle::Grad("embedding"), paddle::Grad("temperature"), paddle::Grad("local_bias"),
              paddle::Grad("position_bias"), paddle::Grad("tokens"), paddle::Grad("token_bias")})
    .Attrs({"height: int64_t", "width: int64_t", "window: int64_t", "unit: bool"})
    .SetKernelFn(PD_KERNEL(backward));

PD_BUILD_OP(nextvit_position_bias)
    .Inputs({"rows", "columns", "row_index", "column_index", "weight_1", "bias_1", "weight_2", "bias_2"})
    .Outputs({"out"})
    .SetKernelFn(PD_KERNEL(position_forward));

PD_BUILD_GRAD_OP(nextvit_position_bias)
    .Inputs({"rows", "columns", "row_index", "column_index", "weight_1", "bias_1", "weight_2", "bias_2",
             paddle::Grad("out")})
    .Outputs({paddle::Grad("weight_1"), paddle::Grad("bias_1"), paddle::Grad("weight_2"),
              paddle::Grad("bias_2")})
    .SetKernelFn(PD_KERNEL(position_backward));

PD_BUILD_OP(nextvit_deformable_attention)
    .Inputs({"value", "locations", "weights"})
    .Outputs({"out"})
    .Attrs({"shapes: std::vector<int64_t>"})
    .SetKernelFn(PD_KERNEL(deformable_forward));

PD_BUILD_GRAD_OP(nextvit_deformable_attention)
    .Inputs({"value", "locations", "weights", paddle::Grad("out")})
    .Outputs({paddle::Grad("value"), paddle::Grad("locations"), paddle::Grad("weights")})
    .Attrs({"shapes: std::vector<int64_t>"})
    .SetKernelFn(PD_KERNEL(deformable_backward));
