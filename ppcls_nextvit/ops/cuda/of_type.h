// The choice of a type by its number.
#pragma once

#include "checks.h"
#include "operators.h"
#include "types.h"

namespace nextvit_cuda {

// run(zero of the type) for the type that `type` names. float64 is for a CPU, where it makes tests
// sharp: a GPU's library would be compiled a third longer for it.
template <class Run>
int of_type(int type, const Run& run) {
  switch (type) {
    case NEXTVIT_FLOAT32: return run(float{});
    case NEXTVIT_FLOAT16: return run(Half{});
    case NEXTVIT_BFLOAT16: return run(BFloat16{});
#ifndef __CUDACC__
    case NEXTVIT_FLOAT64: return run(double{});
#endif
    default: return TYPE;
  }
}

}  // namespace nextvit_cuda
