// The choice of an instruction set; see attention.h.
#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace nextvit {
namespace {

constexpr const char* NAMES[] = {"baseline", "avx2", "avx512"};

bool has(Isa isa) {
#ifdef __x86_64__
  if (isa == Isa::avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == Isa::baseline;
}

}  // namespace

const char* isa_name(Isa isa) { return NAMES[static_cast<int>(isa)]; }

template <class T>
Kernels<T> kernels_of(Isa isa) {
  if (!has(isa)) throw std::invalid_argument(std::string("this processor has no ") + isa_name(isa));
#ifdef __x86_64__
  if (isa == Isa::avx512) return avx512::kernels<T>();
  if (isa == Isa::avx2) return avx2::kernels<T>();
#endif
  return baseline::kernels<T>();
}

template Kernels<float> kernels_of(Isa);
template Kernels<double> kernels_of(Isa);

Isa chosen_isa() {
  int most = static_cast<int>(Isa::avx512);
  if (const char* wanted = std::getenv("PPCLS_NEXTVIT_ISA"); wanted && *wanted) {
    const auto found = std::find(std::begin(NAMES), std::end(NAMES), std::string(wanted));
    if (found == std::end(NAMES))
      throw std::invalid_argument("PPCLS_NEXTVIT_ISA is '" + std::string(wanted) +
                                  "'; expected baseline, avx2 or avx512");
    most = static_cast<int>(found - std::begin(NAMES));
  }
  for (int isa = most; isa > 0; --isa)
    if (has(static_cast<Isa>(isa))) return static_cast<Isa>(isa);
  return Isa::baseline;
}

}  // namespace nextvit
