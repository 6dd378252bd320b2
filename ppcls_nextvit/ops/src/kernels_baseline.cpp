// The kernels for any processor.
#include "kernels.h"

#define VECTOR_BYTES 16

namespace nextvit {
namespace {
#include "simd.inc"

#include "attention.inc"
#include "attention_backward.inc"
#include "position_bias.inc"
}  // namespace

namespace baseline {
template <class T>
Kernels<T> kernels() {
  return {LANES<T>,   TILE<T>,        workspace<T>,          forward<T>,       backward<T>,
          backward_kv<T>, COLUMNS<T>, position_workspace<T>, table_forward<T>, table_backward<T>};
}
template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
}  // namespace baseline
}  // namespace nextvit
