// The operators against their definitions, written down token by token, and their gradients against
// differences; then every instruction set and number of threads against one another. Meant for
// AddressSanitizer and UndefinedBehaviorSanitizer. Exit status 1 and a line for each failure.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "adamw.h"
#include "attention.h"
#include "deformable.h"
#include "position_bias.h"
#include "residual.h"
#include "swap.h"

using nextvit::Isa;

namespace {

struct Sizes {
  int64_t batch, heads, dim, height, width, pooled;
  int window;
  bool unit;
};

// An array for each input, in the order of Problem; and one for the result.
template <class T>
struct Case {
  Sizes sizes;
  std::vector<std::vector<T>> inputs;

  explicit Case(const Sizes& of) : sizes(of) {
    const int64_t n = of.height * of.width, c = of.heads * of.dim, places = int64_t(of.window) * of.window;
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    for (const int64_t count : {of.batch * n * c, of.batch * n * 2 * c, of.batch * of.pooled * 2 * c, c,
                                of.heads, n, of.heads * places, of.heads * n * of.pooled, c * places,
                                of.heads * places}) {
      std::vector<T> values(count);
      for (T& value : values) value = static_cast<T>(normal(random));
      inputs.push_back(values);
    }
    // a query and a key without length
    for (int i : {0, 1})
      if (!inputs[i].empty()) std::fill(inputs[i].begin(), inputs[i].begin() + of.dim, T(0));
  }

  int64_t results() const { return inputs[0].size(); }

  nextvit::Problem<T> problem() const {
    const auto at = [&](int i) { return inputs[i].data(); };
    return {sizes.batch, sizes.heads, sizes.dim, sizes.height, sizes.width, sizes.pooled, sizes.window,
            sizes.unit,  at(0),       at(1),     at(2),        at(3),       at(4),        at(5),
            at(6),       at(7),       at(8),     at(9)};
  }

  std::vector<T> forward(Isa isa) const {
    std::vector<T> out(results());
    nextvit::attention_forward(problem(), out.data(), isa);
    return out;
  }

  // Of every input but the lengths, which have none.
  std::vector<std::vector<T>> backward(const std::vector<T>& of_out, Isa isa) const {
    std::vector<std::vector<T>> grads;
    for (const auto& input : inputs) grads.emplace_back(input.size(), T(NAN));
    const auto at = [&](int i) { return grads[i].data(); };
    nextvit::attention_backward<T>(
        problem(), {of_out.data(), at(0), at(1), at(2), at(3), at(4), at(6), at(7), at(8), at(9)}, isa);
    grads[5].clear();
    return grads;
  }
};

std::vector<double> unit(const double* x, int64_t dim, bool divided) {
  std::vector<double> found(x, x + dim);
  double square = 0;
  for (const double value : found) square += value * value;
  if (divided)
    for (double& value : found) value /= std::sqrt(std::max(square, 1e-24));
  return found;
}

double product(const std::vector<double>& a, const double* b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<double> definition(const Case<double>& of) {
  const Sizes& s = of.sizes;
  const int64_t n = s.height * s.width, c = s.heads * s.dim, places = int64_t(s.window) * s.window;
  std::vector<double> out(of.results());
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t t = 0; t < n; ++t) {
        const auto q = unit(&of.inputs[0][(b * n + t) * c + h * s.dim], s.dim, s.unit);
        std::vector<double> scaled(q), scores, shares;
        for (int64_t d = 0; d < s.dim; ++d)
          scaled[d] = (q[d] + of.inputs[3][h * s.dim + d]) * of.inputs[4][h] * of.inputs[5][t];
        std::vector<const double*> values;
        for (int64_t z = 0; z < places; ++z) {
          const int64_t y = t / s.width + z / s.window - s.window / 2;
          const int64_t x = t % s.width + z % s.window - s.window / 2;
          if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
          const double* key = &of.inputs[1][(b * n + y * s.width + x) * 2 * c + h * s.dim];
          scores.push_back(product(scaled, unit(key, s.dim, s.unit).data()) +
                           of.inputs[6][h * places + z]);
          double share = of.inputs[9][h * places + z];
          for (int64_t d = 0; d < s.dim; ++d) share += q[d] * of.inputs[8][(h * s.dim + d) * places + z];
          shares.push_back(share);
          values.push_back(key + c);
        }
        for (int64_t p = 0; p < s.pooled; ++p) {
          const double* key = &of.inputs[2][(b * s.pooled + p) * 2 * c + h * s.dim];
          scores.push_back(product(scaled, unit(key, s.dim, s.unit).data()) +
                           of.inputs[7][(h * n + t) * s.pooled + p]);
          shares.push_back(0);
          values.push_back(key + c);
        }
        double most = -INFINITY, sum = 0;
        for (const double score : scores) most = std::max(most, score);
        for (double& score : scores) sum += score = std::exp(score - most);
        for (size_t i = 0; i < scores.size(); ++i)
          for (int64_t d = 0; d < s.dim; ++d)
            out[(b * n + t) * c + h * s.dim + d] += (scores[i] / sum + shares[i]) * values[i][d];
      }
  return out;
}

int failures = 0;

template <class T, class U>
void expect_close(const std::vector<T>& found, const std::vector<U>& expected, double bound,
                  const std::string& what) {
  double most = 1, worst = found.size() == expected.size() ? 0 : INFINITY;
  for (const U value : expected) most = std::max(most, std::abs(double(value)));
  for (size_t i = 0; i < found.size() && i < expected.size(); ++i) {
    const double apart = std::abs(double(found[i]) - double(expected[i])) / most;
    if (!(apart <= worst)) worst = apart;
  }
  if (worst <= bound) return;
  ++failures;
  std::printf("%s: %g apart, more than %g\n", what.c_str(), worst, bound);
}

template <class T>
void expect_same(const std::vector<T>& found, const std::vector<T>& expected, const std::string& what) {
  if (found.size() == expected.size() &&
      (found.empty() || !std::memcmp(found.data(), expected.data(), found.size() * sizeof(T))))
    return;
  ++failures;
  std::printf("%s: not the same bits\n", what.c_str());
}

std::vector<double> weights_of(int64_t count) {
  std::vector<double> found(count);
  for (int64_t i = 0; i < count; ++i) found[i] = std::cos(double(i) * 0.37);
  return found;
}

// A sample of every input's gradient against central differences.
void check_differences(Case<double> of, Isa isa, const std::string& name) {
  const std::vector<double> weights = weights_of(of.results());
  const auto grads = of.backward(weights, isa);
  for (size_t input = 0; input < grads.size(); ++input) {
    const int64_t step = std::max<int64_t>(grads[input].size() / 9, 1);
    // those without length have no differences: the first ones of queries and keys
    for (size_t i = input < 2 && of.sizes.unit ? of.sizes.dim : 0; i < grads[input].size(); i += step) {
      double& value = of.inputs[input][i];
      const double kept = value, apart = 1e-5;
      double ends[2];
      for (int end : {0, 1}) {
        value = kept + (end ? apart : -apart);
        ends[end] = product(definition(of), weights.data());
      }
      value = kept;
      expect_close(std::vector<double>{grads[input][i]},
                   std::vector<double>{(ends[1] - ends[0]) / (2 * apart)}, 1e-7,
                   name + ": gradient of input " + std::to_string(input));
    }
  }
}

void check(const Sizes& sizes, Isa best) {
  const Case<double> exact(sizes);
  Case<float> rough(sizes);
  for (size_t i = 0; i < exact.inputs.size(); ++i)
    rough.inputs[i].assign(exact.inputs[i].begin(), exact.inputs[i].end());
  const std::vector<double> expected = definition(exact), weights = weights_of(exact.results());
  const std::vector<float> rough_weights(weights.begin(), weights.end());
  const auto grads = exact.backward(weights, best);
  for (int level = 0; level <= static_cast<int>(best); ++level) {
    const Isa isa = static_cast<Isa>(level);
    const std::string name = std::string(nextvit::isa_name(isa)) + " " + std::to_string(sizes.height) +
                             "x" + std::to_string(sizes.width) + " window " +
                             std::to_string(sizes.window) + " keys " + std::to_string(sizes.pooled);
    expect_close(exact.forward(isa), expected, 1e-12, name + ", double");
    expect_close(rough.forward(isa), expected, 2e-5, name + ", float");
    check_differences(exact, isa, name);
    const auto again = exact.backward(weights, isa);
    const auto rougher = rough.backward(rough_weights, isa);
    for (size_t i = 0; i < grads.size(); ++i) {
      expect_close(again[i], grads[i], 1e-11, name + ", double, gradient " + std::to_string(i));
      // a vector without length has a gradient of 1e12 times what it is multiplied by
      if (!sizes.unit || i > 1)
        expect_close(rougher[i], grads[i], 2e-4, name + ", float, gradient " + std::to_string(i));
    }
  }
}

// Of a table of 3 x 5 pairs, for a map of 4 x 2 and keys of 2 x 3.
void check_position(Isa isa, int64_t hidden, int64_t heads) {
  const std::vector<int64_t> row_index{0, 1, 1, 2, 2, 0, 1, 1}, column_index{4, 3, 0, 1, 2, 2};
  std::mt19937 random(9);
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> inputs;
  for (const int64_t count : {int64_t(3), int64_t(5), 2 * hidden, hidden, hidden * heads, heads}) {
    inputs.emplace_back(count);
    for (double& value : inputs.back()) value = normal(random);
  }
  const auto at = [&](int i) { return inputs[i].data(); };
  const nextvit::PositionProblem<double> problem{
      heads, hidden, 3, 5, 4, 2, 2, 3, at(0), at(1), row_index.data(), column_index.data(),
      at(2), at(3),  at(4), at(5)};
  const auto defined = [&] {
    std::vector<double> out;
    for (int64_t head = 0; head < heads; ++head)
      for (int query = 0; query < 8; ++query)
        for (int key = 0; key < 6; ++key) {
          const double row = inputs[0][row_index[query / 2 * 2 + key / 3]];
          const double column = inputs[1][column_index[query % 2 * 3 + key % 3]];
          double sum = inputs[5][head];
          for (int64_t m = 0; m < hidden; ++m) {
            const double value = row * inputs[2][m] + column * inputs[2][hidden + m] + inputs[3][m];
            sum += std::max(value, 0.0) * inputs[4][m * heads + head];
          }
          out.push_back(sum);
        }
    return out;
  };
  std::vector<double> out(heads * 48);
  nextvit::position_bias_forward(problem, out.data(), isa);
  expect_close(out, defined(), 1e-12, "position bias");
  const std::vector<double> weights = weights_of(out.size());
  std::vector<std::vector<double>> grads;
  for (int i : {2, 3, 4, 5}) grads.emplace_back(inputs[i].size(), NAN);
  nextvit::position_bias_backward<double>(
      problem,
      {weights.data(), grads[0].data(), grads[1].data(), grads[2].data(), grads[3].data()}, isa);
  for (int i = 0; i < 4; ++i)
    for (size_t j = 0; j < grads[i].size(); ++j) {
      double& value = inputs[i + 2][j];
      const double kept = value;
      double ends[2];
      for (int end : {0, 1}) {
        value = kept + (end ? 1e-6 : -1e-6);
        ends[end] = product(defined(), weights.data());
      }
      value = kept;
      expect_close(std::vector<double>{grads[i][j]},
                   std::vector<double>{(ends[1] - ends[0]) / 2e-6}, 1e-6, "position bias, gradient");
    }
}

// Arrays for deformable attention: value, locations, weights; and one for the result.
template <class T>
struct DeformableCase {
  int64_t batch, queries, heads, dim, points;
  std::vector<int64_t> shapes{5, 7, 3, 4, 1, 2};
  std::vector<std::vector<T>> inputs;

  DeformableCase(int64_t batch_, int64_t queries_, int64_t heads_, int64_t dim_, int64_t points_)
      : batch(batch_), queries(queries_), heads(heads_), dim(dim_), points(points_) {
    const int64_t samples = batch * queries * heads * levels() * points;
    std::mt19937 random(3);
    std::uniform_real_distribution<double> uniform(-0.4, 1.4);  // some beyond the edges
    for (const int64_t count : {batch * tokens() * heads * dim, 2 * samples, samples}) {
      inputs.emplace_back(count);
      for (T& value : inputs.back()) value = static_cast<T>(uniform(random));
    }
  }

  int64_t levels() const { return shapes.size() / 2; }
  int64_t tokens() const { return 5 * 7 + 3 * 4 + 1 * 2; }

  nextvit::DeformableProblem<T> problem() const {
    return {batch,  tokens(),      queries,          heads,            dim,
            levels(), points,      shapes.data(),    inputs[0].data(), inputs[1].data(),
            inputs[2].data()};
  }

  std::vector<T> forward(Isa isa) const {
    std::vector<T> out(batch * queries * heads * dim, T(NAN));
    nextvit::deformable_forward(problem(), out.data(), isa);
    return out;
  }

  std::vector<std::vector<T>> backward(const std::vector<T>& of_out, Isa isa) const {
    std::vector<std::vector<T>> grads;
    for (const auto& input : inputs) grads.emplace_back(input.size(), T(NAN));
    nextvit::deformable_backward<T>(
        problem(), {of_out.data(), grads[0].data(), grads[1].data(), grads[2].data()}, isa);
    return grads;
  }

  // One sample and one cell of its level at a time.
  std::vector<double> definition() const {
    std::vector<double> out(batch * queries * heads * dim);
    for (size_t i = 0; i < inputs[2].size(); ++i) {
      const int64_t level = i / points % levels(), item = i / points / levels();
      const int64_t image = item / heads / queries, head = item % heads;
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      const double x = inputs[1][2 * i] * width - 0.5, y = inputs[1][2 * i + 1] * height - 0.5;
      int64_t token = image * tokens();
      for (int64_t l = 0; l < level; ++l) token += shapes[2 * l] * shapes[2 * l + 1];
      for (int64_t row = 0; row < height; ++row)
        for (int64_t column = 0; column < width; ++column, ++token) {
          const double share =
              std::max(0.0, 1 - std::abs(x - column)) * std::max(0.0, 1 - std::abs(y - row));
          for (int64_t d = 0; d < dim; ++d)
            out[item * dim + d] += inputs[2][i] * share * inputs[0][(token * heads + head) * dim + d];
        }
    }
    return out;
  }
};

// Of a sample of every input's entries, none of which is drawn near the centre of a cell.
void check_deformable_differences(DeformableCase<double> of, Isa isa, const std::string& name) {
  const std::vector<double> weights = weights_of(of.forward(isa).size());
  const auto grads = of.backward(weights, isa);
  for (size_t input = 0; input < grads.size(); ++input)
    for (size_t i = 0; i < grads[input].size(); i += std::max<int64_t>(grads[input].size() / 23, 1)) {
      double& value = of.inputs[input][i];
      const double kept = value;
      double ends[2];
      for (int end : {0, 1}) {
        value = kept + (end ? 1e-7 : -1e-7);
        ends[end] = product(of.definition(), weights.data());
      }
      value = kept;
      expect_close(std::vector<double>{grads[input][i]},
                   std::vector<double>{(ends[1] - ends[0]) / 2e-7}, 1e-6,
                   name + ", gradient of input " + std::to_string(input));
    }
}

void check_deformable(DeformableCase<double> exact, Isa best) {
  DeformableCase<float> rough(exact.batch, exact.queries, exact.heads, exact.dim, exact.points);
  const std::vector<double> expected = exact.definition(), weights = weights_of(expected.size());
  const auto grads = exact.backward(weights, best);
  for (int level = 0; level <= static_cast<int>(best); ++level) {
    const Isa isa = static_cast<Isa>(level);
    const std::string name =
        std::string(nextvit::isa_name(isa)) + " deformable " + std::to_string(exact.dim);
    expect_close(exact.forward(isa), expected, 1e-12, name + ", double");
    expect_close(rough.forward(isa), expected, 1e-5, name + ", float");
    check_deformable_differences(exact, isa, name);
    const auto again = exact.backward(weights, isa);
    for (size_t i = 0; i < grads.size(); ++i) expect_close(again[i], grads[i], 1e-12, name + ", sets");
  }
}

// Locations that are far outside, infinite or none; and weights that are none.
void check_odd_locations(Isa isa) {
  DeformableCase<float> of(1, 4, 1, 5, 1);
  const float odd[] = {1e30f, -1e30f, INFINITY, NAN};
  for (int64_t query = 0; query < 4; ++query)
    for (int64_t i = 0; i < 2 * of.levels(); ++i) of.inputs[1][query * 2 * of.levels() + i] = odd[query];
  const auto out = of.forward(isa);
  const auto grads = of.backward(std::vector<float>(out.size(), 1.0f), isa);
  for (int64_t query = 0; query < 4; ++query)
    for (int64_t d = 0; d < 5; ++d) {
      const float found = out[query * 5 + d];
      if (query < 3 ? found == 0 : std::isnan(found)) continue;
      ++failures;
      std::printf("deformable, odd location %g: %g\n", odd[query], found);
    }
  expect_close(grads[0], std::vector<float>(grads[0].size()), 0, "deformable, value of odd locations");
  if (!std::isnan(grads[1].back()) || !std::isnan(grads[2].back()) || grads[1][0] != 0 || grads[2][0] != 0) {
    ++failures;
    std::printf("deformable, gradients of odd locations\n");
  }
}

// The third step, from averages that are not zero.
template <class T>
void check_adamw(int64_t count, Isa isa, double tolerance) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  std::vector<T> arrays[4];  // gradient, parameter, first, second
  for (auto& array : arrays)
    for (int64_t i = 0; i < count; ++i) array.push_back(static_cast<T>(normal(random)));
  for (T& value : arrays[3]) value = std::abs(value);
  std::vector<double> expected(count);
  const double root = std::sqrt(1 - 0.857375);
  for (int64_t i = 0; i < count; ++i) {
    const double g = arrays[0][i], m = 0.8 * arrays[2][i] + 0.2 * g, v = 0.95 * arrays[3][i] + 0.05 * g * g;
    expected[i] = arrays[1][i] * 0.99 - 0.1 * (m / (1 - 0.512)) / (std::sqrt(v) / root + 1e-3);
  }
  nextvit::adamw<T>({count, arrays[0].data(), arrays[1].data(), arrays[2].data(), arrays[3].data(), T(0.8),
                     T(0.95), T(1e-3), T(0.01), T(0.1), 0.512, 0.857375},
                    isa);
  expect_close(arrays[1], expected, tolerance,
               std::string(nextvit::isa_name(isa)) + " adamw of " + std::to_string(count));
}

void check_residual(int64_t batch, int64_t size) {
  std::vector<float> x(batch * size), branch(batch * size), out(batch * size), grads[2], scale;
  std::vector<double> expected, expected_grad;
  for (int64_t image = 0; image < batch; ++image) {
    scale.push_back(image % 2 ? 1.25f : 0.0f);
    for (int64_t i = image * size; i < (image + 1) * size; ++i) {
      x[i] = i % 13;
      branch[i] = i % 7;
      expected.push_back(x[i] + scale[image] * branch[i]);
      expected_grad.push_back(scale[image] * x[i]);
    }
  }
  const nextvit::Residual of{batch, size, scale.data()};
  nextvit::residual_forward(of, x.data(), branch.data(), out.data());
  expect_close(out, expected, 1e-7, "residual");
  for (auto& grad : grads) grad.resize(x.size());
  nextvit::residual_backward(of, x.data(), grads[0].data(), grads[1].data());
  expect_same(grads[0], x, "residual, gradient of x");
  expect_close(grads[1], expected_grad, 1e-7, "residual, gradient of the branch");
}

void check_swap(int64_t outer, int64_t rows, int64_t columns, int64_t size) {
  std::vector<float> from(outer * rows * columns * size), to(from.size(), NAN), expected(from.size());
  for (size_t i = 0; i < from.size(); ++i) from[i] = i;
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t i = 0; i < size; ++i)
          expected[((o * columns + c) * rows + r) * size + i] = from[((o * rows + r) * columns + c) * size + i];
  nextvit::swap(outer, rows, columns, size, from.data(), to.data());
  expect_same(to, expected, "swap");
}

// Larger than a chunk, so that there are several tasks.
void check_threads(Isa isa) {
#ifdef _OPENMP
  const Case<float> of({2, 2, 8, 40, 31, 9, 3, true});
  const std::vector<float> weights(of.results(), 0.5f);
  omp_set_num_threads(1);
  const auto out = of.forward(isa);
  const auto grads = of.backward(weights, isa);
  omp_set_num_threads(1);
  const DeformableCase<float> deformable(2, 70, 2, 19, 3);
  const auto sampled = deformable.forward(isa);
  const auto sampled_grads = deformable.backward(sampled, isa);
  for (int count : {2, 3}) {
    omp_set_num_threads(count);
    const std::string name = std::to_string(count) + " threads";
    expect_same(deformable.forward(isa), sampled, name + ", deformable");
    const auto anew = deformable.backward(sampled, isa);
    for (size_t i = 0; i < anew.size(); ++i)
      expect_same(anew[i], sampled_grads[i], name + ", deformable, gradient");
    expect_same(of.forward(isa), out, name);
    const auto again = of.backward(weights, isa);
    for (size_t i = 0; i < grads.size(); ++i) expect_same(again[i], grads[i], name + ", gradient");
  }
#else
  (void)isa;
#endif
}

}  // namespace

int main() {
  const Isa best = nextvit::chosen_isa();
  const Sizes cases[] = {
      {2, 2, 5, 3, 4, 2, 3, true},  {1, 1, 24, 1, 1, 1, 3, true},  {1, 2, 24, 9, 7, 6, 3, true},
      {2, 1, 8, 5, 6, 3, 5, true},  {1, 1, 3, 8, 9, 5, 7, true},   {1, 1, 4, 1, 9, 1, 5, false},
      {1, 1, 4, 7, 1, 0, 7, false}, {1, 3, 1, 2, 2, 13, 3, false},
  };
  for (const Sizes& sizes : cases) check(sizes, best);
  // nothing at all: no image, no row
  check({0, 1, 4, 3, 3, 2, 3, true}, best);
  check({1, 1, 4, 0, 3, 2, 3, true}, best);
  for (int level = 0; level <= static_cast<int>(best); ++level) {
    check_position(static_cast<Isa>(level), 7, 3);
    check_position(static_cast<Isa>(level), 1, 17);
  }
  for (const int64_t dim : {1, 5, 16, 45}) check_deformable({2, 6, 2, dim, 3}, best);
  // no image, no query, no point
  for (const auto& [batch, queries, points] : {std::array<int64_t, 3>{0, 6, 3}, {2, 0, 3}, {2, 6, 0}})
    check_deformable({batch, queries, 2, 4, points}, best);
  for (int level = 0; level <= static_cast<int>(best); ++level)
    check_odd_locations(static_cast<Isa>(level));
  for (const int64_t count : {0, 1, 7, 19, (1 << 15) + 3})
    for (int level = 0; level <= static_cast<int>(best); ++level) {
      check_adamw<float>(count, static_cast<Isa>(level), 1e-5);
      check_adamw<double>(count, static_cast<Isa>(level), 1e-12);
    }
  for (const auto& [batch, size] : {std::array<int64_t, 2>{0, 5}, {2, 0}, {3, 5}, {2, (1 << 14) + 9}})
    check_residual(batch, size);
  for (const auto& [outer, rows, columns] : {std::array<int64_t, 3>{0, 2, 3}, {2, 5, 3}, {1, 1, 7}})
    check_swap(outer, rows, columns, 4);
  check_threads(best);
  std::printf("%s: %d failures\n", nextvit::isa_name(best), failures);
  return failures != 0;
}
