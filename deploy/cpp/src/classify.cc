// Classify images with an exported Next-ViT, by Paddle Inference.
#include <paddle_inference_api.h>

#include "program.h"

namespace {

class PaddleInference : public nextvit::Engine {
 public:
  PaddleInference(const nextvit::Options& options, const nextvit::Description& description) {
    const std::vector<std::string> files = nextvit::model_files(description, options.model, {".json", ".pdmodel", ".pdiparams"});
    if (files.size() != 2)
      throw nextvit::Error(options.model + "/inference.yml: expected a .json or .pdmodel and a .pdiparams under Files");
    paddle_infer::Config config;
    config.SetModel(files[0], files[1]);
    config.DisableGlogInfo();
    if (options.device == "gpu") {
      config.EnableUseGpu(256, 0);  // MB of the first pool; device 0
      if (!config.use_gpu()) throw nextvit::Error("--device gpu: this Paddle has no CUDA");
    } else {
      config.SetCpuMathLibraryNumThreads(options.threads);
    }
    const bool onednn = options.onednn && options.device == "cpu";
    const bool pir = files[0].substr(files[0].size() - 5) == ".json";
#ifdef PADDLE_3
    if (pir) {
      config.EnableNewIR(true);
      config.EnableNewExecutor(true);  // memory optimisation needs it
    }
    config.EnableMemoryOptim(true);
    if (!onednn) config.DisableMKLDNN();  // on by itself
#else
    if (pir) throw nextvit::Error(files[0] + ": Paddle 2 cannot read it; export with --format pdmodel");
    if (onednn) {
      config.EnableMKLDNN();
    } else {
      config.EnableMemoryOptim(true);  // Paddle 2 has the one or the other
    }
#endif
    if (description.precision == "bf16") {
      if (!onednn) throw nextvit::Error(options.model + ": a bf16 export needs a CPU with oneDNN");
      config.EnableMkldnnBfloat16();
    }
    try {
      predictor_ = paddle_infer::CreatePredictor(config);
    } catch (const std::exception& error) {
      throw nextvit::Error(options.model + ": this Paddle cannot load the model, which paddle " + description.exporter +
                           " exported: " + nextvit::one_line(error.what()));
    }
    input_ = predictor_->GetInputHandle(predictor_->GetInputNames().at(0));
    output_ = predictor_->GetOutputHandle(predictor_->GetOutputNames().at(0));
  }

  std::vector<float> run(const std::vector<float>& batch, const std::array<int, 4>& shape) override {
    input_->Reshape({shape[0], shape[1], shape[2], shape[3]});
    input_->CopyFromCpu(batch.data());
    if (!predictor_->Run()) throw nextvit::Error("Paddle could not run the model");
    size_t size = 1;
    for (const int dimension : output_->shape()) size *= dimension;
    std::vector<float> output(size);
    output_->CopyToCpu(output.data());
    return output;
  }

 private:
  std::shared_ptr<paddle_infer::Predictor> predictor_;
  std::unique_ptr<paddle_infer::Tensor> input_, output_;
};

}  // namespace

int main(int argc, char** argv) {
  return nextvit::run_program(argc, argv, true, [](const nextvit::Options& options, const nextvit::Description& description) {
    return std::make_unique<PaddleInference>(options, description);
  });
}
