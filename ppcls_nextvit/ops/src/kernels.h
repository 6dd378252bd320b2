// What the files of the instruction sets give to attention.cpp.
#pragma once

#include "adamw.h"
#include "attention.h"
#include "deformable.h"
#include "position_bias.h"

namespace nextvit {

// How a problem is cut: a task takes `chunk` consecutive tokens of one head.
struct Plan {
  int64_t tokens;  // N
  int64_t places;  // window^2
  int64_t reach;   // from a token to the furthest neighbour, in raster order
  int64_t chunk, chunks;
  int64_t padded_dim;  // dim, up to whole vectors
  int64_t row;         // of `shares`: all tiles, and `reach` zeros at either end
};

// What the tasks of a backward pass leave to each other. Sums of a chunk's own are added up later, in
// the order of the chunks, so that the number of threads changes no bit.
template <class T>
struct Shared {
  T* shares;  // [batch, heads, 2, places, row]: gradients of the window's scores; weights of its values
  T* pooled;  // [chunks, batch, heads, 2, P, padded_dim]: gradients of unit keys and of values
  T* sums;    // [chunks, heads, sums_size]
};

// Of one chunk and head: embedding [padded_dim], local bias [places], token bias [places], tokens
// [places, padded_dim], temperature [1].
inline int64_t sums_size(const Plan& plan) {
  return plan.padded_dim * (1 + plan.places) + 2 * plan.places + 1;
}

template <class T>
struct Kernels {
  int64_t lanes, tile;  // a chunk is a multiple of a tile
  int64_t (*workspace)(const Problem<T>&, const Plan&);  // elements that a task needs
  void (*forward)(const Problem<T>&, const Plan&, T* workspace, T* out, int64_t image, int64_t head,
                  int64_t chunk);
  // all images of a head's chunk: everything but the gradients of kv
  void (*backward)(const Problem<T>&, const Gradients<T>&, const Plan&, const Shared<T>&, T* workspace,
                   int64_t head, int64_t chunk);
  // the gradients of kv, from `shares`
  void (*backward_kv)(const Problem<T>&, const Gradients<T>&, const Plan&, const Shared<T>&,
                      T* workspace, int64_t image, int64_t head, int64_t chunk);

  // the table of a position bias, in tiles: see position_bias.inc
  int64_t coordinate_columns;
  int64_t (*position_workspace)(const PositionProblem<T>&, int64_t padded_heads);
  void (*table_forward)(const PositionProblem<T>&, int64_t row, T* workspace, int64_t first, T* table);
  void (*table_backward)(const PositionProblem<T>&, int64_t row, int64_t padded_heads, T* workspace,
                         int64_t first, const T* grad, T* sums);

  // deformable attention: queries first .. last of an image; one level of an image's head
  int64_t (*deformable_workspace)(const DeformableProblem<T>&);
  void (*sample_forward)(const DeformableProblem<T>&, T* workspace, T* out, int64_t image,
                         int64_t first, int64_t last);
  void (*sample_backward)(const DeformableProblem<T>&, const DeformableGradients<T>&, int64_t image,
                          int64_t head, int64_t level, int64_t start);

  // elements first .. last of a step of AdamW
  void (*adamw_part)(const AdamW<T>&, int64_t first, int64_t last);
};

// std::invalid_argument for a set that this processor does not have.
template <class T>
Kernels<T> kernels_of(Isa isa);

namespace baseline {
template <class T>
Kernels<T> kernels();
}
namespace avx2 {
template <class T>
Kernels<T> kernels();
}
namespace avx512 {
template <class T>
Kernels<T> kernels();
}

}  // namespace nextvit
