// Heads before tokens, or back, on a CPU.
#pragma once

#include <cstdint>

namespace nextvit {

// from [outer, rows, columns, size] -> to [outer, columns, rows, size]
void swap(int64_t outer, int64_t rows, int64_t columns, int64_t size, const float* from, float* to);

}  // namespace nextvit
