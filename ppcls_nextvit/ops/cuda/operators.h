// The operators for a GPU as plain functions, in a library without Paddle: for ctypes or any other
// program. Pointers are to the GPU's memory, dense and of one type, in the order and of the shapes of
// ../src/attention.h and ../src/deformable.h; `sizes`, `shapes` and the lists of pointers are the
// CPU's. What is launched is not waited for. Each returns a status: 0, or what
// nextvit_cuda_message says in words.
#pragma once

#include <cstdint>

extern "C" {

enum NextvitType { NEXTVIT_FLOAT32 = 0, NEXTVIT_FLOAT16 = 1, NEXTVIT_BFLOAT16 = 2, NEXTVIT_FLOAT64 = 3 };  // the last one on a CPU alone

// sizes: batch, heads, dim (at most 24), height, width, pooled, window (3, 5 or 7), unit (0 or 1).
// inputs: q, kv, pooled_kv, embedding, temperature, lengths, local_bias, position_bias, tokens,
// token_bias.
int nextvit_cuda_attention_forward(int type, const int64_t* sizes, const void* const* inputs, void* out,
                                   void* stream);

// Of a backward pass; what it holds before and after is of no account.
int nextvit_cuda_attention_workspace(int type, const int64_t* sizes, int64_t* bytes);

// grads: of q, kv, pooled_kv, embedding, temperature, local_bias, position_bias, tokens, token_bias.
int nextvit_cuda_attention_backward(int type, const int64_t* sizes, const void* const* inputs,
                                    const void* out_grad, void* const* grads, void* workspace,
                                    int64_t workspace_bytes, void* stream);

// sizes: batch, tokens, queries, heads, dim, levels (at most 8), points. shapes: height and width of
// each level. inputs: value, locations, weights.
int nextvit_cuda_deformable_forward(int type, const int64_t* sizes, const int64_t* shapes,
                                    const void* const* inputs, void* out, void* stream);

int nextvit_cuda_deformable_workspace(int type, const int64_t* sizes, int64_t* bytes);

// grads: of value, locations, weights.
int nextvit_cuda_deformable_backward(int type, const int64_t* sizes, const int64_t* shapes,
                                     const void* const* inputs, const void* out_grad, void* const* grads,
                                     void* workspace, int64_t workspace_bytes, void* stream);

const char* nextvit_cuda_message(int status);
}
