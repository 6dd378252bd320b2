// Tasks and threads of AdamW; see adamw.h.
#include "adamw.h"

#include <algorithm>

#include "kernels.h"
#include "threads.h"

namespace nextvit {
namespace {

constexpr int64_t PART = 1 << 14;  // elements of a task: four arrays of it stay in a core's cache

}  // namespace

template <class T>
void adamw(const AdamW<T>& step, Isa isa) {
  const auto part = kernels_of<T>(isa).adamw_part;
  if (step.count <= PART) return part(step, 0, step.count);
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < step.count; first += PART)
    part(step, first, std::min(first + PART, step.count));
}

template void adamw(const AdamW<float>&, Isa);
template void adamw(const AdamW<double>&, Isa);

}  // namespace nextvit
