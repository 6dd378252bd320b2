// Classify images with a Next-ViT converted for Paddle Lite: what deploy/cpp does, on a phone.
#include <paddle_api.h>

#include <algorithm>

#include "program.h"

namespace {

class PaddleLite : public nextvit::Engine {
 public:
  PaddleLite(const nextvit::Options& options, const nextvit::Description& description) {
    const std::vector<std::string> files = nextvit::model_files(description, options.model, {".nb"});
    if (files.size() != 1) throw nextvit::Error(options.model + "/inference.yml: expected one .nb under Files");
    const auto config = std::make_unique<paddle::lite_api::MobileConfig>();
    config->set_model_from_file(files[0]);
    config->set_threads(options.threads);
    predictor_ = paddle::lite_api::CreatePaddlePredictor(*config);
    if (!predictor_) throw nextvit::Error(files[0] + ": this Paddle Lite cannot load it; convert with the version that runs it");
  }

  std::vector<float> run(const std::vector<float>& batch, const std::array<int, 4>& shape) override {
    auto input = predictor_->GetInput(0);
    input->Resize({shape[0], shape[1], shape[2], shape[3]});
    std::copy(batch.begin(), batch.end(), input->mutable_data<float>());
    predictor_->Run();
    const auto output = predictor_->GetOutput(0);
    size_t size = 1;
    for (const int64_t dimension : output->shape()) size *= dimension;
    return {output->data<float>(), output->data<float>() + size};
  }

 private:
  std::shared_ptr<paddle::lite_api::PaddlePredictor> predictor_;
};

}  // namespace

int main(int argc, char** argv) {
  return nextvit::run_program(argc, argv, false, [](const nextvit::Options& options, const nextvit::Description& description) {
    return std::make_unique<PaddleLite>(options, description);
  });
}
