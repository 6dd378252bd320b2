// The program around an engine: options, batches, results, latency. Paddle Inference and Paddle Lite share it.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "description.h"

namespace nextvit {

struct Options {
  std::string model, json, out;
  std::vector<std::string> images;
  int batch_size = 8, threads = 0, topk = 0, warmup = 1, repeat = 0;
  std::string device = "cpu";
  bool onednn = true;
  double score_threshold = -1, mask_threshold = -1;  // below 0: not given
  double memory = 0;                                 // GB that an image may take; 0: what is free
  std::set<std::string> given;                       // the options on the command line
};

// A named input, or an output, of a model.
struct Tensor {
  std::string name;
  std::vector<int> shape;
  std::vector<float> values;
};

// With how many threads a program computes on a CPU, on stderr, if the command line did not say.
void say_threads(const Options& options);

// Runs the network. Throws std::exception with any text; the program prints one line of it.
class Engine {
 public:
  virtual ~Engine() = default;

  // batch: [count, 3, height, width]. Returns [count, classes].
  virtual std::vector<float> run(const std::vector<float>& batch, const std::array<int, 4>& shape) = 0;

  // Of detectors and segmentors: the outputs at the places `wanted`, float all of them.
  virtual std::vector<Tensor> run_named(const std::vector<Tensor>& inputs, const std::vector<int>& wanted);
};

using MakeEngine = std::function<std::unique_ptr<Engine>(const Options&, const Description&)>;

// The line of an engine's message that says what went wrong: the one behind the summary's rule in a traceback of Paddle's, else the first.
std::string one_line(const std::string& text);

// A name or a message as a terminal may have it: control characters, and bytes that are not UTF-8, as \xNN.
std::string shown(std::string_view text);

// `text` as JSON. A byte of a file's name that is not UTF-8 becomes what Python reads it as.
std::string json_text(std::string_view text);

// The whole of main(). Exit status: 0, 1 if an image or the model failed, 2 for a wrong command line.
// inference_flags: accept --device and --[no-]onednn.
int run_program(int argc, char** argv, bool inference_flags, const MakeEngine& make_engine);

}  // namespace nextvit
