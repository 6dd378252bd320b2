#include "postprocess.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nextvit {

std::vector<float> softmax(std::vector<float> logits) {
  if (logits.empty()) return logits;
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float& x : logits) sum += x = std::exp(x - largest);
  for (float& x : logits) x = static_cast<float>(x / sum);
  return logits;
}

bool are_told(const std::vector<float>& scores, bool probabilities) {
  const double off = std::abs(std::accumulate(scores.begin(), scores.end(), 0.0) - 1);
  const bool negative = std::any_of(scores.begin(), scores.end(), [](float x) { return x < 0; });
  return probabilities ? !negative && off <= 0.1 : scores.size() < 2 || negative || off >= 1e-4;
}

std::vector<int> top_k(const std::vector<float>& scores, int k) {
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  k = std::clamp<int>(k, 0, static_cast<int>(order.size()));
  std::partial_sort(order.begin(), order.begin() + k, order.end(),
                    [&](int a, int b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
  order.resize(k);
  return order;
}

}  // namespace nextvit
