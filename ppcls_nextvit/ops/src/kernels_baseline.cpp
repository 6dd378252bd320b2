// The kernels for any processor.
#include "kernels.h"

#define VECTOR_BYTES 16
#define ISA baseline
#include "kernels.inc"
