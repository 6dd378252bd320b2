#include "convolution.h"

#include "plan.h"
#include "threads.h"

namespace nextvit {
namespace {

using namespace dnnl;

// Places of the tensors that a plan runs on.
enum Tensors { X, WEIGHT, BIAS_VECTOR, OUT, GRAD_X, GRAD_WEIGHT, GRAD_BIAS, COUNT };

Key key_of(const Convolution& of, int64_t kind) {
  return {kind,           threads(),        of.batch,      of.in_channels, of.height,
          of.width,       of.out_channels,  of.groups,     of.kernel[0],   of.kernel[1],
          of.stride[0],   of.stride[1],     of.padding[0], of.padding[1],  of.dilation[0],
          of.dilation[1], of.bias + 2 * of.relu, int64_t(of.bfloat16)};
}

// The layouts of the tensors as they are given, and as oneDNN may choose them.
struct Layouts {
  OwnedLayout x, weight, bias, out;
  OwnedLayout any_x, any_weight, any_out;

  Layouts(const Convolution& of, Type x_type, Type weight_type, Type out_type) {
    const std::vector<int64_t> x_sizes{of.batch, of.in_channels, of.height, of.width};
    const std::vector<int64_t> out_sizes{of.batch, of.out_channels, of.out_size(0), of.out_size(1)};
    std::vector<int64_t> weight_sizes{of.out_channels, of.in_channels, of.kernel[0], of.kernel[1]};
    Tag plain = ABCD;
    if (of.groups > 1) {
      weight_sizes = {of.groups, of.out_channels / of.groups, of.in_channels / of.groups, of.kernel[0],
                      of.kernel[1]};
      plain = ABCDE;
    }
    x = layout(x_sizes, F32, ABCD);
    weight = layout(weight_sizes, F32, plain);
    bias = layout({of.out_channels}, F32, A);
    out = layout(out_sizes, F32, ABCD);
    any_x = layout(x_sizes, x_type, ANY);
    any_weight = layout(weight_sizes, weight_type, ANY);
    any_out = layout(out_sizes, out_type, ANY);
  }
};

// What every description of a convolution names.
struct Geometry {
  dnnl_dims_t stride = {}, dilation = {}, padding = {};

  explicit Geometry(const Convolution& of) {
    for (int axis = 0; axis < 2; ++axis) {
      stride[axis] = of.stride[axis];
      dilation[axis] = of.dilation[axis] - 1;  // oneDNN counts the gaps
      padding[axis] = of.padding[axis];
    }
  }
};

Type factor(const Convolution& of) { return of.bfloat16 ? BF16 : F32; }

OwnedDescription described_forward(const Convolution& of, const Layouts& as) {
  const Geometry at(of);
  const OwnedAttributes with = attributes({false, of.relu});
  dnnl_primitive_desc* made = nullptr;
  check(dnnl_convolution_forward_primitive_desc_create(
            &made, engine(), FORWARD_TRAINING, DIRECT, as.any_x.get(), as.any_weight.get(),
            of.bias ? as.bias.get() : nullptr, as.any_out.get(), at.stride, at.dilation, at.padding,
            at.padding, with.get()),
        "convolution");
  return OwnedDescription(made);
}

OwnedDescription described_input(const Convolution& of, const Layouts& as, const dnnl_primitive_desc* forward) {
  const Geometry at(of);
  const OwnedAttributes with = attributes();
  dnnl_primitive_desc* made = nullptr;
  check(dnnl_convolution_backward_data_primitive_desc_create(
            &made, engine(), DIRECT, as.any_x.get(), as.any_weight.get(), as.any_out.get(), at.stride,
            at.dilation, at.padding, at.padding, forward, with.get()),
        "gradient of a convolution's input");
  return OwnedDescription(made);
}

OwnedDescription described_weight(const Convolution& of, const Layouts& as, const dnnl_primitive_desc* forward) {
  const Geometry at(of);
  const OwnedAttributes with = attributes();
  dnnl_primitive_desc* made = nullptr;
  check(dnnl_convolution_backward_weights_primitive_desc_create(
            &made, engine(), DIRECT, as.any_x.get(), as.any_weight.get(), of.bias ? as.bias.get() : nullptr,
            as.any_out.get(), at.stride, at.dilation, at.padding, at.padding, forward, with.get()),
        "gradient of a convolution's weight");
  return OwnedDescription(made);
}

Plan forward_plan(const Convolution& of) {
  const Layouts as(of, factor(of), factor(of), F32);
  const OwnedDescription description = described_forward(of, as);
  const auto chosen = [&](Query what) { return dnnl_primitive_desc_query_md(description.get(), what, 0); };
  Plan plan;
  dnnl_memory* const out = plan.given(OUT, as.out.get());
  std::vector<dnnl_exec_arg_t> arguments{
      {SRC, plan.in_layout(plan.given(X, as.x.get()), as.x.get(), chosen(QUERY_SRC))},
      {WEIGHTS, plan.in_layout(plan.given(WEIGHT, as.weight.get()), as.weight.get(), chosen(QUERY_WEIGHTS))}};
  if (of.bias) arguments.push_back({BIAS, plan.given(BIAS_VECTOR, as.bias.get())});
  dnnl_memory* const made = plan.output(out, as.out.get(), chosen(QUERY_DST));
  arguments.push_back({DST, made});
  plan.add(description.get(), std::move(arguments));
  plan.written(made, chosen(QUERY_DST), out, as.out.get());
  return plan;
}

// The gradient for the input, then that for the weight; the copy of the incoming one serves both where
// they want the same layout.
Plan backward_plan(const Convolution& of, bool input, bool weight) {
  const OwnedDescription forward = described_forward(of, Layouts(of, factor(of), factor(of), F32));
  Plan plan;
  const Layouts plain(of, F32, F32, F32);
  dnnl_memory* const given = plan.given(OUT, plain.out.get());
  dnnl_memory* grad = given;
  OwnedLayout grad_layout;  // of the copy
  if (input) {
    const Layouts as(of, F32, factor(of), factor(of));
    const OwnedDescription description = described_input(of, as, forward.get());
    const auto chosen = [&](Query what) { return dnnl_primitive_desc_query_md(description.get(), what, 0); };
    dnnl_memory* const out = plan.given(GRAD_X, as.x.get());
    grad = plan.in_layout(given, as.out.get(), chosen(QUERY_DIFF_DST));
    dnnl_memory_desc* copied = nullptr;
    check(dnnl_memory_desc_clone(&copied, chosen(QUERY_DIFF_DST)), "layout");
    grad_layout.reset(copied);
    const size_t before = plan.mark();
    dnnl_memory* const filters =
        plan.in_layout(plan.given(WEIGHT, as.weight.get()), as.weight.get(), chosen(QUERY_WEIGHTS));
    dnnl_memory* const made = plan.output(out, as.x.get(), chosen(QUERY_DIFF_SRC));
    plan.add(description.get(), {{DIFF_DST, grad}, {WEIGHTS, filters}, {DIFF_SRC, made}});
    plan.written(made, chosen(QUERY_DIFF_SRC), out, as.x.get());
    plan.release(before);
  }
  if (weight) {
    const Layouts as(of, factor(of), F32, factor(of));
    const OwnedDescription description = described_weight(of, as, forward.get());
    const auto chosen = [&](Query what) { return dnnl_primitive_desc_query_md(description.get(), what, 0); };
    if (!grad_layout || !dnnl_memory_desc_equal(grad_layout.get(), chosen(QUERY_DIFF_DST)))
      grad = plan.in_layout(given, as.out.get(), chosen(QUERY_DIFF_DST));
    dnnl_memory* const out = plan.given(GRAD_WEIGHT, as.weight.get());
    dnnl_memory* const x = plan.in_layout(plan.given(X, as.x.get()), as.x.get(), chosen(QUERY_SRC));
    dnnl_memory* const made = plan.output(out, as.weight.get(), chosen(QUERY_DIFF_WEIGHTS));
    std::vector<dnnl_exec_arg_t> arguments{{SRC, x}, {DIFF_DST, grad}, {DIFF_WEIGHTS, made}};
    if (of.bias) arguments.push_back({DIFF_BIAS, plan.given(GRAD_BIAS, as.bias.get())});
    plan.add(description.get(), std::move(arguments));
    plan.written(made, chosen(QUERY_DIFF_WEIGHTS), out, as.weight.get());
  }
  return plan;
}

}  // namespace

int64_t Convolution::out_size(int axis) const {
  const int64_t size = axis ? width : height;
  const int64_t covered = dilation[axis] * (kernel[axis] - 1) + 1;
  return (size + 2 * padding[axis] - covered) / stride[axis] + 1;
}

void convolution_forward(const Convolution& of, const float* x, const float* weight, const float* bias,
                         float* out) {
  std::vector<void*> tensors(COUNT);
  tensors[X] = read(x);
  tensors[WEIGHT] = read(weight);
  tensors[BIAS_VECTOR] = read(bias);
  tensors[OUT] = out;
  plans().at(key_of(of, 0), [&] { return forward_plan(of); }).run(tensors);
}

void convolution_backward(const Convolution& of, const float* x, const float* weight, const float* grad,
                          float* grad_x, float* grad_weight, float* grad_bias) {
  const bool input = grad_x, filters = grad_weight;
  if (!input && !filters) return;
  std::vector<void*> tensors(COUNT);
  tensors[X] = read(x);
  tensors[WEIGHT] = read(weight);
  tensors[OUT] = read(grad);
  tensors[GRAD_X] = grad_x;
  tensors[GRAD_WEIGHT] = grad_weight;
  tensors[GRAD_BIAS] = grad_bias;
  const int64_t kind = 1 + input + 2 * filters;
  plans().at(key_of(of, kind), [&] { return backward_plan(of, input, filters); }).run(tensors);
}

void relu_backward(int64_t count, const float* out, const float* grad, float* before) {
#pragma omp parallel for simd
  for (int64_t i = 0; i < count; ++i) {
    const float given = grad[i];
    before[i] = out[i] > 0 ? given : 0.0f;
  }
}

}  // namespace nextvit
