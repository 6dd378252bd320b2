// The product of matrices against its definition, with its gradients, in every layout of the operands.
// Meant for AddressSanitizer and UndefinedBehaviorSanitizer. Exit status 1 and a line for each failure.
#include <cstdio>
#include <vector>

#include "checking.h"
#include "product.h"

using checking::drawn;
using nextvit::Product;

namespace {

int failures = 0;

// Where the element at (row, column) of matrix `number` of [rows, columns] is in memory.
int64_t place(int64_t number, int64_t row, int64_t column, int64_t rows, int64_t columns, bool transposed,
              bool shared) {
  const int64_t within = transposed ? column * rows + row : row * columns + column;
  return (shared ? 0 : number * rows * columns) + within;
}

void compare(const char* what, const Product& of, const std::vector<float>& found,
             const std::vector<double>& expected) {
  const double off = checking::difference(found, expected);
  if (off <= 5e-6) return;
  ++failures;
  std::printf("%s of %lld x [%lld, %lld] [%lld, %lld], transposed %d %d, shared %d %d: off by %g\n", what,
              (long long)of.batch, (long long)of.rows, (long long)of.inner, (long long)of.inner,
              (long long)of.columns, of.left_transposed, of.right_transposed, of.left_shared,
              of.right_shared, off);
}

void examine(const Product& of) {
  const auto left = drawn((of.left_shared ? 1 : of.batch) * of.rows * of.inner);
  const auto right = drawn((of.right_shared ? 1 : of.batch) * of.inner * of.columns);
  const auto bias = drawn(of.columns), grad = drawn(of.batch * of.rows * of.columns);
  std::vector<double> out(grad.size()), grad_left(left.size()), grad_right(right.size()), sums(of.columns);
  for (int64_t b = 0; b < of.batch; ++b)
    for (int64_t r = 0; r < of.rows; ++r)
      for (int64_t c = 0; c < of.columns; ++c) {
        const int64_t o = (b * of.rows + r) * of.columns + c;
        out[o] = bias[c];
        sums[c] += grad[o];
        for (int64_t i = 0; i < of.inner; ++i) {
          const int64_t l = place(b, r, i, of.rows, of.inner, of.left_transposed, of.left_shared);
          const int64_t s = place(b, i, c, of.inner, of.columns, of.right_transposed, of.right_shared);
          out[o] += double(left[l]) * right[s];
          grad_left[l] += double(grad[o]) * right[s];
          grad_right[s] += double(grad[o]) * left[l];
        }
      }
  std::vector<float> found(out.size()), found_left(left.size()), found_right(right.size()), found_sums(of.columns);
  nextvit::product(of, left.data(), right.data(), bias.data(), found.data());
  nextvit::product_backward(of, left.data(), right.data(), grad.data(), found_left.data(), found_right.data());
  nextvit::sum_rows(grad.data(), of.batch * of.rows, of.columns, found_sums.data());
  compare("output", of, found, out);
  compare("gradient of left", of, found_left, grad_left);
  compare("gradient of right", of, found_right, grad_right);
  compare("gradient of the bias", of, found_sums, sums);
  std::fill(found_right.begin(), found_right.end(), 0);
  nextvit::product_backward(of, left.data(), right.data(), grad.data(), nullptr, found_right.data());
  compare("gradient of right alone", of, found_right, grad_right);
}

}  // namespace

int main() {
  for (int layout = 0; layout < 16; ++layout) {
    const bool a = layout & 1, b = layout & 2, left = layout & 4, right = layout & 8;
    if (left && right) continue;
    examine({3, 5, 7, 9, a, b, left, right, false});
    examine({2, 33, 20, 70, a, b, left, right, false});
    examine({1, 1, 1, 1, a, b, left, right, false});
  }
  std::printf("products: %d failures\n", failures);
  return failures != 0;
}
