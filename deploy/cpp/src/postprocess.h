// From the model's output to the best classes. Nothing but the standard library.
#pragma once

#include <vector>

namespace nextvit {

// exp(x) / sum of exp(x), without overflow.
std::vector<float> softmax(std::vector<float> logits);

// Whether an image's scores are what the description tells, probabilities or logits; as agreement.py of deploy/python.
bool are_told(const std::vector<float>& scores, bool probabilities);

// The indices of the `k` largest scores, best first; of equal scores the lower index first.
std::vector<int> top_k(const std::vector<float>& scores, int k);

}  // namespace nextvit
