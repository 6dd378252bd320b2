// Numbers of 16, 32 and 64 bits, as they are stored and as they are computed with. What is marked
// BOTH is compiled for a GPU by nvcc and for a CPU by any C++17 compiler, with which it is tested.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define BOTH __host__ __device__ __forceinline__
#else
#define BOTH inline
#endif

namespace nextvit_cuda {

struct Half {
  uint16_t bits;  // IEEE 754 binary16
};

struct BFloat16 {
  uint16_t bits;  // the upper half of a float
};

// What is computed with: float but for double.
template <class T>
struct Computed {
  using type = float;
};
template <>
struct Computed<double> {
  using type = double;
};
template <class T>
using computed = typename Computed<T>::type;

BOTH uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

BOTH float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

BOTH double read(double x) { return x; }
BOTH float read(float x) { return x; }
BOTH float read(BFloat16 x) { return float_of(uint32_t(x.bits) << 16); }
BOTH float read(Half x) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(x.bits));
#else
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
  // so many powers of two lie between the two biases; scaling makes subnormal numbers normal
  const float scaled = float_of(rest) * float_of(uint32_t(254 - 15) << 23);
  return float_of(bits_of(rest >= 0x0f800000 ? float_of(rest | 0x7f800000) : scaled) | sign);
#endif
}

BOTH void write(double value, double* to) { *to = value; }
BOTH void write(float value, float* to) { *to = value; }

// To the nearest number, of two to the even one.
BOTH void write(float value, BFloat16* to) {
  const uint32_t bits = bits_of(value);
  const bool none = (bits & 0x7fffffff) > 0x7f800000;
  to->bits = uint16_t(none ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

BOTH void write(float value, Half* to) {
#ifdef __CUDA_ARCH__
  to->bits = __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffff;
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  if (magnitude > 0x7f800000) {
    to->bits = uint16_t(sign | 0x7e00);
  } else if (magnitude >= 0x477ff000) {  // rounds to more than the greatest one
    to->bits = uint16_t(sign | 0x7c00);
  } else if (magnitude < 0x38800000) {  // subnormal: the sum's last bits are those that are kept
    const float sum = float_of(magnitude) + 0.5f;
    to->bits = uint16_t(sign | (bits_of(sum) - 0x3f000000));
  } else {
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    to->bits = uint16_t(sign | ((rounded - (uint32_t(127 - 15) << 23)) >> 13));
  }
#endif
}

}  // namespace nextvit_cuda
