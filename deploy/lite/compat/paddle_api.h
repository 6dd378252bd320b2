// The part of Paddle Lite's C++ API that image_classification.cc calls, declared anew, so that the program can be run on a PC: the x86
// library in the wheel paddlelite 2.12 exports these functions, but no wheel has their header. Not for a phone: the inference package has
// its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

namespace paddle {
namespace lite_api {

enum class TargetType : int { kHost = 1 };
enum PowerMode { LITE_POWER_NO_BIND = 3 };

struct ConfigBase {
  explicit ConfigBase(PowerMode mode = LITE_POWER_NO_BIND, int threads = 1);
  void set_threads(int threads);

 private:
  alignas(std::max_align_t) std::byte room_[1 << 12];
};

// Its own members, strings and numbers, are made by an inline constructor of the real header. Zeros stand for them: an empty libstdc++
// string that owns nothing.
struct MobileConfig : ConfigBase {
  void set_model_from_file(const std::string& path);
  [[gnu::noinline]] static void* operator new(size_t size) { return std::calloc(1, size); }
  [[gnu::noinline]] static void operator delete(void* memory) { std::free(memory); }
};

struct Tensor {
  void Resize(const std::vector<int64_t>& shape);
  std::vector<int64_t> shape() const;
  template <typename T>
  T* mutable_data(TargetType type = TargetType::kHost) const;
  template <typename T>
  const T* data() const;

 private:
  void* tensor_;
};

struct PaddlePredictor {  // the first virtual functions, in the order of the real class
  virtual std::unique_ptr<Tensor> GetInput(int index) = 0;
  virtual std::unique_ptr<const Tensor> GetOutput(int index) const = 0;
  virtual void Run() = 0;
};

template <typename Config>
std::shared_ptr<PaddlePredictor> CreatePaddlePredictor(const Config& config);

}  // namespace lite_api
}  // namespace paddle
