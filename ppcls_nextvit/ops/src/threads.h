// Memory and threads of the operators.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace nextvit {

constexpr int64_t ALIGNMENT = 64;  // bytes, of a cache line

inline int64_t up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

template <class T>
using Memory = std::unique_ptr<T[], Free>;

template <class T>
Memory<T> memory(int64_t count) {
  const auto bytes = static_cast<size_t>(up(std::max<int64_t>(count, 1) * sizeof(T), ALIGNMENT));
  void* found = std::aligned_alloc(ALIGNMENT, bytes);
  if (!found) throw std::bad_alloc();
  return Memory<T>(static_cast<T*>(found));
}

inline int threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

inline int thread() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// task(number, workspace) for every number below `count`.
template <class T, class Task>
void in_threads(int64_t count, int64_t workspace_size, const Task& task) {
  const int most = static_cast<int>(std::min<int64_t>(threads(), count));
  const int64_t size = up(workspace_size, ALIGNMENT);
  const Memory<T> workspaces = memory<T>(size * most);
  T* const first = workspaces.get();
#pragma omp parallel for schedule(dynamic) num_threads(most)
  for (int64_t number = 0; number < count; ++number) task(number, first + thread() * size);
}

}  // namespace nextvit
