// The part of Paddle Inference's C++ API that src/classify.cc calls, declared anew for machines that have the paddlepaddle wheel and not
// the paddle_inference package: the wheel's libpaddle.so exports these functions, but no wheel has their header.
//
// Only what is passed by pointer or reference, or made on the other side, crosses the border, so the layout of no class of Paddle's
// matters: Config is room enough for the real one, and Tensor and Predictor live behind pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace paddle {

struct AnalysisConfig {
  enum class Precision { kFloat32 = 0 };

  AnalysisConfig();
  ~AnalysisConfig();
  void SetModel(const std::string& program, const std::string& weights);
  void DisableGlogInfo();
  void EnableUseGpu(uint64_t pool_megabytes, int device, Precision precision = Precision::kFloat32);
  bool use_gpu() const;
  void SetCpuMathLibraryNumThreads(int threads);
  void EnableMKLDNN();
  void DisableMKLDNN();
  void EnableMkldnnBfloat16();
  void EnableMemoryOptim(bool on);
  void EnableNewIR(bool on);        // from 3.0
  void EnableNewExecutor(bool on);  // from 3.0

 private:
  alignas(std::max_align_t) std::byte room_[1 << 16];  // the class has some 2 KB in 3.3
};

}  // namespace paddle

namespace paddle_infer {

using Config = paddle::AnalysisConfig;

struct Tensor {
  void Reshape(const std::vector<int>& shape);
  std::vector<int> shape() const;
  template <typename T>
  void CopyFromCpu(const T* data);
  template <typename T>
  void CopyToCpu(T* data) const;
};

struct Predictor {
  std::vector<std::string> GetInputNames();
  std::vector<std::string> GetOutputNames();
  std::unique_ptr<Tensor> GetInputHandle(const std::string& name);
  std::unique_ptr<Tensor> GetOutputHandle(const std::string& name);
  bool Run();
};

std::shared_ptr<Predictor> CreatePredictor(const Config& config);

}  // namespace paddle_infer
