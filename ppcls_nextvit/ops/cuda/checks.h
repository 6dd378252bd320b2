// What is refused before anything is launched.
#pragma once

#include <cstdint>

namespace nextvit_cuda {

enum Refusal {
  NEGATIVE_SIZE = -1,
  TOO_LARGE = -2,
  WINDOW = -3,
  DIM = -4,
  TYPE = -5,
  NO_POINTER = -6,
  WORKSPACE = -7,
  LEVELS = -8,
  CELLS = -9,
};

inline const char* message(int refusal) {
  switch (refusal) {
    case NEGATIVE_SIZE: return "a size is negative";
    case TOO_LARGE: return "the sizes come to more than 2^40 elements";
    case WINDOW: return "the window is not 3, 5 or 7";
    case DIM: return "a head has more than 24 channels, or none";
    case TYPE: return "unknown type";
    case NO_POINTER: return "a pointer is null whose array is not empty";
    case WORKSPACE: return "the workspace is too small";
    case LEVELS: return "there are more than 8 levels, or none";
    case CELLS: return "the levels' shapes do not come to the number of tokens";
    default: return "unknown status";
  }
}

constexpr int64_t MOST_ELEMENTS = int64_t(1) << 40;

// The product of sizes, none negative. -1: more than MOST_ELEMENTS.
template <class... Sizes>
int64_t product(Sizes... sizes) {
  int64_t found = 1;
  bool empty = false, large = false;
  for (const int64_t size : {int64_t(sizes)...}) {
    empty = empty || size == 0;
    large = large || size > MOST_ELEMENTS || (size && found > MOST_ELEMENTS / size);
    if (!large && size) found *= size;
  }
  return empty ? 0 : large ? -1 : found;
}

// 0 or a Refusal, of a list of pointers and how many elements each has to have.
inline int check_arrays(const void* const* pointers, const int64_t* counts, int count) {
  if (!pointers) return NO_POINTER;
  for (int i = 0; i < count; ++i) {
    if (counts[i] < 0) return TOO_LARGE;
    if (counts[i] && !pointers[i]) return NO_POINTER;
  }
  return 0;
}

}  // namespace nextvit_cuda
