// The kernels for x86 processors with AVX2 and FMA.
#include "kernels.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define VECTOR_BYTES 32

namespace nextvit {
namespace {
#include "simd.inc"

#include "attention.inc"
#include "attention_backward.inc"
#include "position_bias.inc"
}  // namespace

namespace avx2 {
template <class T>
Kernels<T> kernels() {
  return {LANES<T>,   TILE<T>,        workspace<T>,          forward<T>,       backward<T>,
          backward_kv<T>, COLUMNS<T>, position_workspace<T>, table_forward<T>, table_backward<T>};
}
template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
}  // namespace avx2
}  // namespace nextvit

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
