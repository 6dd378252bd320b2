// The kernels for x86 processors with AVX-512 (F, DQ, BW, VL).
#include "kernels.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

#define VECTOR_BYTES 64
#define ISA avx512
#include "kernels.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
