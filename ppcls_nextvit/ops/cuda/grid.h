// task(i) for every i below a count: by the threads of a GPU where nvcc compiles, otherwise one after
// the other in the same grid, so that all but the launch itself can be tested without a GPU.
#pragma once

#include <cstdint>

#include "types.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

namespace nextvit_cuda {

constexpr int THREADS = 128;              // of a block
constexpr int64_t MOST_BLOCKS = 1 << 16;  // more elements: a thread takes several

struct Grid {
  int64_t count, blocks;

  explicit Grid(int64_t count_) : count(count_), blocks((count_ + THREADS - 1) / THREADS) {
    if (blocks > MOST_BLOCKS) blocks = MOST_BLOCKS;
  }
};

template <class Task>
BOTH void run_thread(const Task& task, int64_t count, int64_t blocks, int64_t block, int64_t thread) {
  for (int64_t i = block * THREADS + thread; i < count; i += blocks * THREADS) task(i);
}

#ifdef __CUDACC__
template <class Task>
__global__ void __launch_bounds__(THREADS) run_grid(Task task, int64_t count) {
  run_thread(task, count, gridDim.x, blockIdx.x, threadIdx.x);
}
#endif

// 0, or a cudaError_t. Nothing is launched for nothing.
template <class Task>
int for_each(int64_t count, const Task& task, void* stream) {
  if (count <= 0) return 0;
  const Grid grid(count);
#ifdef __CUDACC__
  run_grid<<<static_cast<unsigned>(grid.blocks), THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
      task, count);
  return static_cast<int>(cudaGetLastError());
#else
  (void)stream;
  for (int64_t block = 0; block < grid.blocks; ++block)
    for (int64_t thread = 0; thread < THREADS; ++thread)
      run_thread(task, count, grid.blocks, block, thread);
  return 0;
#endif
}

// *to += value, while other threads do the same.
template <class T>
BOTH void add_to(T* to, T value) {
#ifdef __CUDA_ARCH__
  atomicAdd(to, value);
#else
  *to += value;
#endif
}

}  // namespace nextvit_cuda
