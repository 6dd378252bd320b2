// Products of matrices in float32 by oneDNN, without Paddle.
#pragma once

#include <cstdint>

namespace nextvit {

// Of `batch` products of left [rows, inner] and right [inner, columns], each row by row in memory.
struct Product {
  int64_t batch, rows, inner, columns;
  bool left_transposed, right_transposed;  // in memory: [inner, rows], [columns, inner]
  bool left_shared, right_shared;          // one matrix for all products
  bool bfloat16;                           // of values rounded to bfloat16, summed in float32
};

// out [batch, rows, columns] = left * right + bias [columns], which is nullptr where there is none.
void product(const Product& of, const float* left, const float* right, const float* bias, float* out);

// The gradients for left and right of what has the gradient `grad` for its output, in the layout of left
// and right; what is shared gets the sum over the products. nullptr where one is not wanted.
void product_backward(const Product& of, const float* left, const float* right, const float* grad,
                      float* grad_left, float* grad_right);

// out [columns]: the sums over the rows of `of` [rows, columns].
void sum_rows(const float* of, int64_t rows, int64_t columns, float* out);

}  // namespace nextvit
