// The kernels for x86 processors with AVX2 and FMA.
#include "kernels.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define VECTOR_BYTES 32
#define ISA avx2
#include "kernels.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
