// The bias of TransNeXt's scores by the distance of a query and a key, in plain C++17.
//
// An MLP makes a bias for every head of every pair of distances that occurs, in height and in width:
//   table[head, i, j] = relu((rows[i], columns[j]) . weight_1 + bias_1) . weight_2 + bias_2
// and a query at (y, x) and a key at (a, b) have that of row_index[y, a] and column_index[x, b].
// Neither the hidden values nor the index of all pairs of queries and keys are in memory as a whole.
#pragma once

#include "attention.h"

namespace nextvit {

template <class T>
struct PositionProblem {
  int64_t heads, hidden, table_rows, table_columns;
  int64_t height, width, key_rows, key_columns;
  const T *rows, *columns;      // [table_rows], [table_columns]
  const int64_t* row_index;     // [height, key_rows], below table_rows
  const int64_t* column_index;  // [width, key_columns], below table_columns
  const T *weight_1, *bias_1;   // [2, hidden], [hidden]
  const T *weight_2, *bias_2;   // [hidden, heads], [heads]
};

template <class T>
struct PositionGradients {
  const T* out;  // [heads, height * width, key_rows * key_columns]
  T *weight_1, *bias_1, *weight_2, *bias_2;
};

// out: [heads, height * width, key_rows * key_columns]. Bitwise the same for any number of threads.
// std::out_of_range for an index that is none.
template <class T>
void position_bias_forward(const PositionProblem<T>& problem, T* out, Isa isa);

// Bitwise the same for any number of threads.
template <class T>
void position_bias_backward(const PositionProblem<T>& problem, const PositionGradients<T>& gradients,
                            Isa isa);

}  // namespace nextvit
