// A step of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on a CPU, in plain C++17: one pass over
// a parameter and its averages.
#pragma once

#include "attention.h"

namespace nextvit {

template <class T>
struct AdamW {
  int64_t count;
  const T* gradient;
  T *parameter, *first, *second;    // the averages of the gradient and of its square; all are written
  T beta1, beta2, epsilon;          // of the averages; what is added to the root of the second's estimate
  T decay;                          // rate * weight decay
  T rate;                           // the learning rate
  double beta1_power, beta2_power;  // to the number of this step, from 1
};

// Bitwise the same for any number of threads.
template <class T>
void adamw(const AdamW<T>& step, Isa isa);

}  // namespace nextvit
