// The convolution against its definition, forward and both gradients, of many shapes one after the
// other: plans are made, kept, used again and given up. Meant for AddressSanitizer and
// UndefinedBehaviorSanitizer. Exit status 1 and a line for each failure.
#include <cstdio>
#include <vector>

#include "checking.h"
#include "convolution.h"

using checking::drawn;
using nextvit::Convolution;

namespace {

int failures = 0;

// term(output, x, weight) for the indices of every product of the sum.
template <class Term>
void products(const Convolution& of, const Term& term) {
  const int64_t inputs = of.in_channels / of.groups, outputs = of.out_channels / of.groups;
  const int64_t rows = of.out_size(0), columns = of.out_size(1);
  for (int64_t b = 0; b < of.batch; ++b)
    for (int64_t o = 0; o < of.out_channels; ++o)
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t column = 0; column < columns; ++column)
          for (int64_t i = 0; i < inputs; ++i)
            for (int64_t r = 0; r < of.kernel[0]; ++r)
              for (int64_t c = 0; c < of.kernel[1]; ++c) {
                const int64_t y = row * of.stride[0] - of.padding[0] + r * of.dilation[0];
                const int64_t x = column * of.stride[1] - of.padding[1] + c * of.dilation[1];
                if (y < 0 || y >= of.height || x < 0 || x >= of.width) continue;
                const int64_t channel = o / outputs * inputs + i;
                term(((b * of.out_channels + o) * rows + row) * columns + column,
                     ((b * of.in_channels + channel) * of.height + y) * of.width + x,
                     ((o * inputs + i) * of.kernel[0] + r) * of.kernel[1] + c);
              }
}

void compare(const char* what, const Convolution& of, const std::vector<float>& found,
             const std::vector<double>& expected) {
  const double off = checking::difference(found, expected);
  if (off <= 2e-6) return;
  ++failures;
  std::printf("%s of %lld -> %lld, kernel %lld, %lld x %lld: off by %g\n", what, (long long)of.in_channels,
              (long long)of.out_channels, (long long)of.kernel[0], (long long)of.height,
              (long long)of.width, off);
}

void examine(const Convolution& of) {
  const int64_t rows = of.out_size(0), columns = of.out_size(1);
  const auto x = drawn(of.batch * of.in_channels * of.height * of.width);
  const auto weight = drawn(of.out_channels * of.in_channels / of.groups * of.kernel[0] * of.kernel[1]);
  const auto bias = drawn(of.out_channels);
  const auto grad = drawn(of.batch * of.out_channels * rows * columns);
  std::vector<double> out(grad.size()), grad_x(x.size()), grad_weight(weight.size()), grad_bias(bias.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t channel = static_cast<int64_t>(i) / (rows * columns) % of.out_channels;
    out[i] = of.bias ? bias[channel] : 0;
    grad_bias[channel] += grad[i];
  }
  products(of, [&](int64_t o, int64_t i, int64_t w) {
    out[o] += double(x[i]) * weight[w];
    grad_x[i] += double(grad[o]) * weight[w];
    grad_weight[w] += double(grad[o]) * x[i];
  });
  std::vector<float> found(out.size()), found_x(x.size()), found_weight(weight.size()), found_bias(bias.size());
  nextvit::convolution_forward(of, x.data(), weight.data(), of.bias ? bias.data() : nullptr, found.data());
  nextvit::convolution_backward(of, x.data(), weight.data(), grad.data(), found_x.data(),
                                found_weight.data(), of.bias ? found_bias.data() : nullptr);
  compare("output", of, found, out);
  compare("gradient of the input", of, found_x, grad_x);
  compare("gradient of the weight", of, found_weight, grad_weight);
  if (of.bias) compare("gradient of the bias", of, found_bias, grad_bias);
  std::fill(found_x.begin(), found_x.end(), 0);
  nextvit::convolution_backward(of, x.data(), weight.data(), grad.data(), found_x.data(), nullptr, nullptr);
  compare("gradient of the input alone", of, found_x, grad_x);
}

}  // namespace

int main() {
  const std::vector<Convolution> shapes{
      {2, 3, 8, 7, 9, 1, {3, 3}, {2, 2}, {1, 1}, {1, 1}, true, false},
      {1, 6, 5, 5, 4, 2, {3, 3}, {1, 1}, {1, 1}, {1, 1}, false, false},
      {3, 8, 6, 7, 8, 8, {3, 3}, {2, 2}, {1, 1}, {1, 1}, true, false},
      {2, 5, 4, 4, 7, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, false},
      {1, 4, 9, 9, 4, 1, {3, 3}, {1, 1}, {2, 2}, {2, 2}, false, false},
      {1, 4, 7, 8, 6, 2, {3, 1}, {2, 1}, {1, 0}, {1, 1}, true, false},
      {1, 1, 1, 1, 1, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, false, false},
      {2, 33, 6, 5, 66, 3, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, false},
  };
  for (int turn = 0; turn < 2; ++turn)
    for (const Convolution& shape : shapes) examine(shape);
  // more than are kept, of which the first are made anew
  for (int64_t width = 1; width <= 400; ++width)
    examine({1, 2, 1, width, 2, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, false, false});
  for (const Convolution& shape : shapes) examine(shape);
  std::printf("convolutions: %d failures\n", failures);
  return failures != 0;
}
