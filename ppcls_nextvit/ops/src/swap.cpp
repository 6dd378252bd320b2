// See swap.h.
#include "swap.h"

#include <algorithm>

namespace nextvit {

void swap(int64_t outer, int64_t rows, int64_t columns, int64_t size, const float* from, float* to) {
#pragma omp parallel for schedule(static)
  for (int64_t number = 0; number < outer * columns; ++number) {
    const int64_t image = number / columns, column = number % columns;
    const float* read = from + (image * rows * columns + column) * size;
    float* written = to + number * rows * size;
    for (int64_t row = 0; row < rows; ++row)
      std::copy_n(read + row * columns * size, size, written + row * size);
  }
}

}  // namespace nextvit
