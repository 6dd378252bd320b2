// Tasks and threads of the position bias; see position_bias.h.
#include "position_bias.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "threads.h"

namespace nextvit {
namespace {

constexpr int64_t MOST_PARTS = 16;  // of the table: sums for each are kept

// place(query, key, pair) for every query and key, of which `pair` of the table is the bias.
template <class T, class Place>
void for_each_pair(const PositionProblem<T>& problem, const Place& place) {
  const int64_t keys = problem.key_rows * problem.key_columns;
  for (int64_t y = 0; y < problem.height; ++y)
    for (int64_t x = 0; x < problem.width; ++x) {
      const int64_t query = (y * problem.width + x) * keys;
      const int64_t* const columns = problem.column_index + x * problem.key_columns;
      for (int64_t a = 0; a < problem.key_rows; ++a) {
        const int64_t start = problem.row_index[y * problem.key_rows + a] * problem.table_columns;
        for (int64_t b = 0; b < problem.key_columns; ++b)
          place(query + a * problem.key_columns + b, start + columns[b]);
      }
    }
}

void check_index(const int64_t* index, int64_t count, int64_t bound) {
  for (int64_t i = 0; i < count; ++i)
    if (index[i] < 0 || index[i] >= bound)
      throw std::out_of_range("index " + std::to_string(index[i]) + " of " + std::to_string(bound) +
                              " distances");
}

template <class T>
int64_t values_of_head(const PositionProblem<T>& problem) {
  return problem.height * problem.width * problem.key_rows * problem.key_columns;
}

// The parts' sums, in their order, to the parameters.
template <class T>
void add_parts(const PositionProblem<T>& problem, const PositionGradients<T>& gradients, const T* sums,
               int64_t parts, int64_t size, int64_t padded_heads, int64_t columns) {
  const int64_t hidden = problem.hidden, heads = problem.heads;
  std::fill(gradients.weight_1, gradients.weight_1 + 2 * hidden, T(0));
  std::fill(gradients.bias_1, gradients.bias_1 + hidden, T(0));
  std::fill(gradients.weight_2, gradients.weight_2 + hidden * heads, T(0));
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t m = 0; m < hidden; ++m) {
      const T* const second = sums + part * size + m * padded_heads;
      const T* const first = sums + part * size + hidden * padded_heads + m * columns;
      for (int64_t head = 0; head < heads; ++head) gradients.weight_2[m * heads + head] += second[head];
      gradients.weight_1[m] += first[0];
      gradients.weight_1[hidden + m] += first[1];
      gradients.bias_1[m] += first[2];
    }
}

}  // namespace

template <class T>
void position_bias_forward(const PositionProblem<T>& problem, T* out, Isa isa) {
  const Kernels<T> kernels = kernels_of<T>(isa);
  const int64_t values = values_of_head(problem);
  check_index(problem.row_index, problem.height * problem.key_rows, problem.table_rows);
  check_index(problem.column_index, problem.width * problem.key_columns, problem.table_columns);
  if (problem.heads * values == 0) return;
  const int64_t row = up(problem.table_rows * problem.table_columns, kernels.tile);
  const Memory<T> table = memory<T>(problem.heads * row);
  in_threads<T>(row / kernels.tile, kernels.position_workspace(problem, 0),
                [&](int64_t number, T* workspace) {
                  kernels.table_forward(problem, row, workspace, number * kernels.tile, table.get());
                });
  in_threads<T>(problem.heads, 0, [&](int64_t head, T*) {
    T* const to = out + head * values;
    const T* const from = table.get() + head * row;
    for_each_pair(problem, [&](int64_t place, int64_t pair) { to[place] = from[pair]; });
  });
}

template <class T>
void position_bias_backward(const PositionProblem<T>& problem, const PositionGradients<T>& gradients,
                            Isa isa) {
  const Kernels<T> kernels = kernels_of<T>(isa);
  const int64_t values = values_of_head(problem);
  const int64_t row = up(problem.table_rows * problem.table_columns, kernels.tile);
  const int64_t padded_heads = up(problem.heads, kernels.lanes);
  const Memory<T> grad = memory<T>(problem.heads * row);
  in_threads<T>(problem.heads, 0, [&](int64_t head, T*) {
    T* const to = grad.get() + head * row;
    const T* const from = gradients.out + head * values;
    std::fill(to, to + row, T(0));
    for_each_pair(problem, [&](int64_t place, int64_t pair) { to[pair] += from[place]; });
    T sum = 0;
    for (int64_t pair = 0; pair < row; ++pair) sum += to[pair];
    gradients.bias_2[head] = sum;
  });
  const int64_t tiles = row / kernels.tile, parts = std::min(tiles, MOST_PARTS);
  const int64_t size = problem.hidden * (padded_heads + kernels.coordinate_columns);
  const Memory<T> sums = memory<T>(parts * size);
  in_threads<T>(parts, kernels.position_workspace(problem, padded_heads),
                [&](int64_t part, T* workspace) {
                  T* const own = sums.get() + part * size;
                  std::fill(own, own + size, T(0));
                  for (int64_t tile = part; tile < tiles; tile += parts)
                    kernels.table_backward(problem, row, padded_heads, workspace, tile * kernels.tile,
                                           grad.get(), own);
                });
  add_parts(problem, gradients, sums.get(), parts, size, padded_heads, kernels.coordinate_columns);
}

template void position_bias_forward(const PositionProblem<float>&, float*, Isa);
template void position_bias_forward(const PositionProblem<double>&, double*, Isa);
template void position_bias_backward(const PositionProblem<float>&, const PositionGradients<float>&, Isa);
template void position_bias_backward(const PositionProblem<double>&, const PositionGradients<double>&,
                                     Isa);

}  // namespace nextvit
