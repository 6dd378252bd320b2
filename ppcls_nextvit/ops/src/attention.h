// Aggregated attention of TransNeXt on a CPU, in plain C++17: pointers and sizes, nothing of Paddle.
//
// Every token of a map of height x width sees the window x window neighbours around it that are in
// the image, and `pooled` keys that all tokens share, in one softmax; the weights of the window then
// gain a share that depends on the query alone (Shi 2024, arXiv:2311.17132). With N = height * width,
// P = pooled and C = heads * dim, all arrays are dense and in this order:
//
//   u = q / |q| and so k (as they are where `unit` is false); s = (u + embedding) * temperature * length
//   weights = softmax(s . k[neighbour] + local_bias, s . pooled k + position_bias)
//   out = sum (weights + u . tokens + token_bias) * v[neighbour] + sum weights * pooled v
//
// Neither unfolded keys and values nor the N x (window^2 + P) weights are ever in memory as a whole.
#pragma once

#include <cstdint>

namespace nextvit {

template <class T>
struct Problem {
  int64_t batch, heads, dim, height, width, pooled;
  int window;  // 3, 5 or 7
  bool unit;   // whether queries and keys are divided by their lengths
  const T* q;              // [batch, N, C]
  const T* kv;             // [batch, N, 2 * C]: keys, then values
  const T* pooled_kv;      // [batch, P, 2 * C]
  const T* embedding;      // [heads, dim]
  const T* temperature;    // [heads]
  const T* lengths;        // [N]: what a query is multiplied by beside its head's temperature
  const T* local_bias;     // [heads, window^2]
  const T* position_bias;  // [heads, N, P]
  const T* tokens;         // [heads, dim, window^2]
  const T* token_bias;     // [heads, window^2]
};

template <class T>
struct Gradients {
  const T* out;  // [batch, N, C]: of the result; the others are written, each like its input
  T *q, *kv, *pooled_kv, *embedding, *temperature;
  T *local_bias, *position_bias, *tokens, *token_bias;
};

// The instruction sets that there are kernels for, from the plain one up.
enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

// The best one that this processor has and the variable PPCLS_NEXTVIT_ISA (a name of Isa) allows.
// std::invalid_argument for another value of it.
Isa chosen_isa();
const char* isa_name(Isa isa);

// out: [batch, N, C]. Bitwise the same for any number of threads (of OpenMP).
template <class T>
void attention_forward(const Problem<T>& problem, T* out, Isa isa);

// Bitwise the same for any number of threads.
template <class T>
void attention_backward(const Problem<T>& problem, const Gradients<T>& gradients, Isa isa);

}  // namespace nextvit
