// Multi-scale deformable attention for a GPU; ../src/deformable.h has the formula and the arrays. A
// value's gradient is a sum over threads in whatever order they come: its last bits differ from run
// to run.
#pragma once

#include "grid.h"

namespace nextvit_cuda {

constexpr int MOST_LEVELS = 8;

template <class T>
struct Deformable {
  int64_t batch, tokens, queries, heads, dim, levels, points;
  int64_t heights[MOST_LEVELS], widths[MOST_LEVELS], starts[MOST_LEVELS];  // starts: first tokens
  const T *value, *locations, *weights;
};

// One bilinear sample: its four neighbours, from the upper left to the lower right.
template <class A>
struct Sample {
  int64_t places[4];  // tokens of the level; -1: outside the map
  A shares[4];        // of the neighbours; all are none if the location is
  A right, down;      // from the left neighbours, from the upper ones, in cells

  BOTH Sample(A across, A along, int64_t height, int64_t width) : right(0), down(0) {
    const A x = across * A(width) - A(0.5), y = along * A(height) - A(0.5);
    const bool near = x > A(-1) && x < A(width) && y > A(-1) && y < A(height);
    const A none = x != x || y != y ? x + y : A(0);
    const int64_t column = near ? (x < 0 ? -1 : int64_t(x)) : -2;
    const int64_t row = near ? (y < 0 ? -1 : int64_t(y)) : -2;
    if (near) {
      right = x - A(column);
      down = y - A(row);
    }
    for (int k = 0; k < 4; ++k) {
      const int64_t own_row = row + k / 2, own_column = column + k % 2;
      const bool inside = own_row >= 0 && own_row < height && own_column >= 0 && own_column < width;
      places[k] = inside ? own_row * width + own_column : -1;
      const A share = (k / 2 ? down : 1 - down) * (k % 2 ? right : 1 - right);
      shares[k] = near ? share : none;
    }
  }
};

template <class T>
struct DeformableStep {
  using A = computed<T>;
  Deformable<T> of;

  // Number i of [batch, queries, heads, levels, points].
  BOTH Sample<A> sample(int64_t i, int64_t level) const {
    return {A(read(of.locations[2 * i])), A(read(of.locations[2 * i + 1])), of.heights[level],
            of.widths[level]};
  }

  // A channel of a token of a level in `value`, for item [batch, queries, heads].
  BOTH int64_t at(int64_t item, int64_t level, int64_t place, int64_t channel) const {
    const int64_t image = item / of.heads / of.queries;
    const int64_t token = image * of.tokens + of.starts[level] + place;
    return (token * of.heads + item % of.heads) * of.dim + channel;
  }
};

// Of every query, head and channel.
template <class T>
struct DeformableForward : DeformableStep<T> {
  using A = computed<T>;
  T* out;

  BOTH void operator()(int64_t i) const {
    const auto& of = this->of;
    const int64_t item = i / of.dim, channel = i % of.dim;
    A sum = 0;
    for (int64_t level = 0; level < of.levels; ++level)
      for (int64_t p = 0; p < of.points; ++p) {
        const int64_t number = (item * of.levels + level) * of.points + p;
        const Sample<A> sample = this->sample(number, level);
        const A weight = A(read(of.weights[number]));
        for (int k = 0; k < 4; ++k) {
          const int64_t place = sample.places[k];
          const A value = place < 0 ? A(0) : A(read(of.value[this->at(item, level, place, channel)]));
          sum += sample.shares[k] * weight * value;
        }
      }
    write(sum, out + i);
  }
};

// Of every query, head and channel: its shares to the values, sums of zeros before.
template <class T>
struct ValuesBackward : DeformableStep<T> {
  using A = computed<T>;
  const T* grad;
  A* values;

  BOTH void operator()(int64_t i) const {
    const auto& of = this->of;
    const int64_t item = i / of.dim, channel = i % of.dim;
    const A own = A(read(grad[i]));
    for (int64_t level = 0; level < of.levels; ++level)
      for (int64_t p = 0; p < of.points; ++p) {
        const int64_t number = (item * of.levels + level) * of.points + p;
        const Sample<A> sample = this->sample(number, level);
        const A weight = A(read(of.weights[number]));
        for (int k = 0; k < 4; ++k)
          if (sample.places[k] >= 0)
            add_to(values + this->at(item, level, sample.places[k], channel),
                   own * weight * sample.shares[k]);
      }
  }
};

// Of every sample.
template <class T>
struct SamplesBackward : DeformableStep<T> {
  using A = computed<T>;
  const T* grad;
  T *locations, *weights;

  BOTH void operator()(int64_t i) const {
    const auto& of = this->of;
    const int64_t level = i / of.points % of.levels, item = i / of.points / of.levels;
    const Sample<A> sample = this->sample(i, level);
    const A weight = A(read(of.weights[i]));
    A products[4] = {0, 0, 0, 0}, sum = 0;
    for (int k = 0; k < 4; ++k) {
      if (sample.places[k] >= 0)
        for (int64_t channel = 0; channel < of.dim; ++channel)
          products[k] += A(read(grad[item * of.dim + channel])) *
                         A(read(of.value[this->at(item, level, sample.places[k], channel)]));
      sum += sample.shares[k] * products[k];
    }
    const A across = (1 - sample.down) * (products[1] - products[0]) +
                     sample.down * (products[3] - products[2]);
    const A along = (1 - sample.right) * (products[2] - products[0]) +
                    sample.right * (products[3] - products[1]);
    write(sum, weights + i);
    // of a location that is none, the sum is none
    write((sum == sum ? across : sum) * weight * A(of.widths[level]), locations + 2 * i);
    write((sum == sum ? along : sum) * weight * A(of.heights[level]), locations + 2 * i + 1);
  }
};

template <class A>
struct Clear {
  A* values;
  BOTH void operator()(int64_t i) const { values[i] = 0; }
};

template <class A, class T>
struct Store {
  const A* from;
  T* to;
  BOTH void operator()(int64_t i) const { write(from[i], to + i); }
};

}  // namespace nextvit_cuda
