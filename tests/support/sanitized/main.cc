// deploy/cpp's whole program around a network that needs no Paddle: of each image, the mean of the first channel decides.
#include <algorithm>
#include <numeric>

#include "postprocess.h"
#include "program.h"

namespace {

class Mean : public nextvit::Engine {
 public:
  explicit Mean(size_t classes) : classes_(classes) {}

  std::vector<float> run(const std::vector<float>& batch, const std::array<int, 4>& shape) override {
    const size_t area = static_cast<size_t>(shape[2]) * shape[3];
    std::vector<float> scores;
    for (int i = 0; i < shape[0]; ++i) {
      const auto first = batch.begin() + 3 * area * i;
      const float mean = std::accumulate(first, first + area, 0.0f) / static_cast<float>(area);
      std::vector<float> near;
      for (size_t k = 0; k < classes_; ++k) near.push_back(-std::abs(mean - static_cast<float>(k)));
      for (const float share : nextvit::softmax(near)) scores.push_back(share);
    }
    return scores;
  }

 private:
  size_t classes_;
};

}  // namespace

int main(int argc, char** argv) {
  return nextvit::run_program(argc, argv, false, [](const nextvit::Options&, const nextvit::Description& description) {
    return std::make_unique<Mean>(description.labels.size());
  });
}
