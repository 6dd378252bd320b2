// Classify images, detect objects or label pixels with an exported model, by Paddle Inference.
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
    for (const std::string& name : predictor_->GetOutputNames()) outputs_.push_back(predictor_->GetOutputHandle(name));
    if (outputs_.empty()) throw nextvit::Error(options.model + ": the model has no output");
  }

  std::vector<float> run(const std::vector<float>& batch, const std::array<int, 4>& shape) override {
    input_->Reshape({shape[0], shape[1], shape[2], shape[3]});
    input_->CopyFromCpu(batch.data());
    if (!predictor_->Run()) throw nextvit::Error("Paddle could not run the model");
    return values_of(*outputs_[0]);
  }

  std::vector<nextvit::Tensor> run_named(const std::vector<nextvit::Tensor>& inputs, const std::vector<int>& wanted) override {
    for (const nextvit::Tensor& input : inputs) {
      const auto handle = predictor_->GetInputHandle(input.name);
      handle->Reshape(input.shape);
      handle->CopyFromCpu(input.values.data());
    }
    if (!predictor_->Run()) throw nextvit::Error("Paddle could not run the model");
    std::vector<nextvit::Tensor> outputs;
    for (const int place : wanted) outputs.push_back({"", outputs_.at(place)->shape(), values_of(*outputs_.at(place))});
    return outputs;
  }

 private:
  static std::vector<float> values_of(const paddle_infer::Tensor& output) {
    size_t size = 1;
    for (const int dimension : output.shape()) size *= dimension;
    std::vector<float> values(size);
    if (size) output.CopyToCpu(values.data());
    return values;
  }

  std::shared_ptr<paddle_infer::Predictor> predictor_;
  std::unique_ptr<paddle_infer::Tensor> input_;
  std::vector<std::unique_ptr<paddle_infer::Tensor>> outputs_;
};

}  // namespace

int main(int argc, char** argv) {
  return nextvit::run_program(argc, argv, true, [](const nextvit::Options& options, const nextvit::Description& description) {
    return std::make_unique<PaddleInference>(options, description);
  });
}
