// What the checks of the operators by oneDNN share: random operands, and results beside those of the
// definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace checking {

inline std::vector<float> drawn(int64_t count) {
  static std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// The largest difference, as a share of the largest expected value.
inline double difference(const std::vector<float>& found, const std::vector<double>& expected) {
  double most = 0, scale = 1e-6;
  for (size_t i = 0; i < found.size(); ++i) {
    const double off = std::fabs(found[i] - expected[i]);
    if (off > most || std::isnan(off)) most = off;  // and stays it
    scale = std::max(scale, std::fabs(expected[i]));
  }
  return most / scale;
}

}  // namespace checking
