#include "product.h"

#include <algorithm>

#include "plan.h"
#include "threads.h"

namespace nextvit {
namespace {

using namespace dnnl;

enum Tensors { LEFT, RIGHT, BIAS_VECTOR, OUT, COUNT };

constexpr int64_t PRODUCT = 64;   // of a Key: no kind of convolution
constexpr int64_t COLUMNS = 256;  // that a thread sums at once

Key key_of(const Product& of, bool bias, bool adds) {
  return {PRODUCT,
          threads(),
          of.batch,
          of.rows,
          of.inner,
          of.columns,
          of.left_transposed,
          of.right_transposed,
          of.left_shared,
          of.right_shared,
          of.bfloat16,
          bias,
          adds};
}

// Of [batch, rows, columns], where a shared matrix counts as a batch of one.
OwnedLayout matrices(int64_t batch, int64_t rows, int64_t columns, bool transposed, Type type) {
  const int64_t down = transposed ? 1 : columns, across = transposed ? rows : 1;
  return strided({batch, rows, columns}, type, {rows * columns, down, across});
}

Plan plan_of(const Product& of, bool bias, bool adds) {
  const Type factor = of.bfloat16 ? BF16 : F32;
  const int64_t lefts = of.left_shared ? 1 : of.batch, rights = of.right_shared ? 1 : of.batch;
  const auto left = [&](Type type) { return matrices(lefts, of.rows, of.inner, of.left_transposed, type); };
  const auto right = [&](Type type) {
    return matrices(rights, of.inner, of.columns, of.right_transposed, type);
  };
  const OwnedLayout out = matrices(of.batch, of.rows, of.columns, false, F32);
  const OwnedLayout added = matrices(1, 1, of.columns, false, F32);
  const OwnedAttributes with = attributes({adds, false});
  dnnl_primitive_desc* made = nullptr;
  check(dnnl_matmul_primitive_desc_create(&made, engine(), left(factor).get(), right(factor).get(),
                                          bias ? added.get() : nullptr, out.get(), with.get()),
        "product");
  const OwnedDescription description(made);
  Plan plan;
  const auto operand = [&](size_t at, const auto& layout) {
    return plan.in_layout(plan.given(at, layout(F32).get()), layout(F32).get(), layout(factor).get());
  };
  std::vector<dnnl_exec_arg_t> arguments{{SRC, operand(LEFT, left)}, {WEIGHTS, operand(RIGHT, right)}};
  if (bias) arguments.push_back({BIAS, plan.given(BIAS_VECTOR, added.get())});
  arguments.push_back({DST, plan.given(OUT, out.get())});
  plan.add(description.get(), std::move(arguments));
  return plan;
}

void run(const Product& of, const float* left, const float* right, const float* bias, float* out,
         bool adds = false) {
  std::vector<void*> tensors(COUNT);
  tensors[LEFT] = read(left);
  tensors[RIGHT] = read(right);
  tensors[BIAS_VECTOR] = read(bias);
  tensors[OUT] = out;
  plans().at(key_of(of, bias, adds), [&] { return plan_of(of, bias, adds); }).run(tensors);
}

// out: the products, or their sum.
void run(Product of, const float* left, const float* right, float* out, bool summed) {
  if (!summed) return run(of, left, right, nullptr, out);
  const int64_t left_step = of.left_shared ? 0 : of.rows * of.inner;
  const int64_t right_step = of.right_shared ? 0 : of.inner * of.columns;
  const int64_t count = of.batch;
  of.batch = 1;
  for (int64_t number = 0; number < count; ++number)
    run(of, left + number * left_step, right + number * right_step, nullptr, out, number > 0);
}

}  // namespace

void product(const Product& of, const float* left, const float* right, const float* bias, float* out) {
  run(of, left, right, bias, out);
}

void product_backward(const Product& of, const float* left, const float* right, const float* grad,
                      float* grad_left, float* grad_right) {
  // each operand's gradient is that product whose rows are the operand's in memory
  if (grad_left && of.left_transposed)
    run({of.batch, of.inner, of.columns, of.rows, of.right_transposed, true, of.right_shared, false, of.bfloat16},
        right, grad, grad_left, of.left_shared);
  else if (grad_left)
    run({of.batch, of.rows, of.columns, of.inner, false, !of.right_transposed, false, of.right_shared, of.bfloat16},
        grad, right, grad_left, of.left_shared);
  if (grad_right && of.right_transposed)
    run({of.batch, of.columns, of.rows, of.inner, true, of.left_transposed, false, of.left_shared, of.bfloat16},
        grad, left, grad_right, of.right_shared);
  else if (grad_right)
    run({of.batch, of.inner, of.rows, of.columns, !of.left_transposed, false, of.left_shared, false, of.bfloat16},
        left, grad, grad_right, of.right_shared);
}

void sum_rows(const float* of, int64_t rows, int64_t columns, float* out) {
  const int64_t blocks = (columns + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = block * COLUMNS, last = std::min(columns, first + COLUMNS);
    std::fill(out + first, out + last, 0.0f);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = first; column < last; ++column) out[column] += of[row * columns + column];
  }
}

}  // namespace nextvit
