// Multi-scale deformable attention (Zhu et al. 2021, arXiv:2010.04159) on a CPU, in plain C++17.
//
// The maps of all levels are one list of tokens, level by level, each row by row. A head of a query
// adds up `points` bilinear samples of each level with weights of their own:
//
//   out = sum over levels and points of weight * sample(value of that level, location)
//
// A location (x, y) counts from a map's outer edges in shares of it: column j has its centre at
// (j + 0.5) / width. Outside a map values are zero. A location that is no number makes the result
// none. The samples are never in memory as a whole.
#pragma once

#include "attention.h"

namespace nextvit {

template <class T>
struct DeformableProblem {
  int64_t batch, tokens, queries, heads, dim, levels, points;
  const int64_t* shapes;  // [levels, 2]: height and width, at least 1, with `tokens` cells in all
  const T* value;         // [batch, tokens, heads, dim]
  const T* locations;     // [batch, queries, heads, levels, points, 2]
  const T* weights;       // [batch, queries, heads, levels, points]
};

template <class T>
struct DeformableGradients {
  const T* out;  // [batch, queries, heads, dim]: of the result; the others are written
  T *value, *locations, *weights;
};

// out: [batch, queries, heads, dim]. Bitwise the same for any number of threads.
template <class T>
void deformable_forward(const DeformableProblem<T>& problem, T* out, Isa isa);

// Bitwise the same for any number of threads. Where a location is exactly at a cell's centre, its
// gradient is the slope towards the greater side.
template <class T>
void deformable_backward(const DeformableProblem<T>& problem, const DeformableGradients<T>& gradients,
                         Isa isa);

}  // namespace nextvit
