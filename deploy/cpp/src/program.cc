#include "program.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "dense_program.h"
#include "files.h"
#include "image.h"
#include "postprocess.h"
#include "threads.h"

namespace nextvit {
namespace {

constexpr char HELP[] =
    "usage: %s --model DIR --images WHAT [options]\n"
    "  --model DIR        what tools/export_model.py wrote\n"
    "  --images WHAT ...  JPEG and PNG files, folders with all below them, patterns, lists (.txt), - for standard input\n"
    "  --batch-size N     of a classifier: images per run (8)\n"
    "  --threads N        on a CPU; default: OMP_NUM_THREADS, else the cores that are there\n"
    "%s"
    "  --topk N           of a classifier; default: what the model was exported with\n"
    "  --json FILE        write the predictions as JSON\n"
    "  --repeat N         run each batch N times more, timed, and print the latency\n"
    "  --warmup N         untimed runs before the first of them (1)\n";
constexpr char INFERENCE_HELP[] =
    "  --device cpu|gpu   (cpu)\n"
    "  --no-onednn        on a CPU: Paddle's own kernels\n"
    "  --out DIR          of detectors and segmentors: draw what was found into this folder\n"
    "  --score-threshold X  of a detector: objects from this score on; default: that of the export\n"
    "  --mask-threshold X   of a detector: pixels from this probability on are an object's (0.5)\n"
    "  --memory GB        of detectors and segmentors: images that take more are refused; default: what is free\n";

// Options that are not for all tasks.
const std::map<std::string, std::vector<Task>> TASKS_OF = {
    {"--topk", {Task::classification}},
    {"--batch-size", {Task::classification}},
    {"--score-threshold", {Task::detection}},
    {"--mask-threshold", {Task::detection}},
    {"--out", {Task::detection, Task::segmentation}},
    {"--memory", {Task::detection, Task::segmentation}},
};

// A wrong command line; exit status 2.
struct UsageError : Error {
  using Error::Error;
};

int whole_number(const std::string& flag, const std::string& text, int least) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least) {
    throw UsageError(flag + ": expected a whole number of " + std::to_string(least) + " or more, got '" + text + "'");
  }
  return value;
}

double real_number(const std::string& flag, const std::string& text, double most) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end || !(value >= 0 && value <= most)) {
    throw UsageError(flag + ": expected a number from 0 to " + (most > 1 ? "a million" : "1") + ", got '" + text + "'");
  }
  return value;
}

void check_options(const Options& options, Task task) {
  for (const auto& [flag, tasks] : TASKS_OF) {
    if (!options.given.count(flag) || std::count(tasks.begin(), tasks.end(), task)) continue;
    std::string named;
    for (const Task one : tasks) named += (named.empty() ? "" : " and ") + std::string(task_name(one));
    throw Error(flag + ": for " + named + "; this export is for " + task_name(task));
  }
}

Options parse(int argc, char** argv, bool inference_flags) {
  Options options;
  std::map<std::string, std::string*> texts = {{"--model", &options.model}, {"--json", &options.json}};
  std::map<std::string, std::pair<int*, int>> numbers = {{"--batch-size", {&options.batch_size, 1}},
                                                         {"--threads", {&options.threads, 1}},
                                                         {"--topk", {&options.topk, 1}},
                                                         {"--repeat", {&options.repeat, 1}},
                                                         {"--warmup", {&options.warmup, 0}}};
  std::map<std::string, std::pair<double*, double>> reals;
  if (inference_flags) {
    texts["--device"] = &options.device;
    texts["--out"] = &options.out;
    reals = {{"--score-threshold", {&options.score_threshold, 1}},
             {"--mask-threshold", {&options.mask_threshold, 1}},
             {"--memory", {&options.memory, 1e6}}};
  }
  auto known = [&](const std::string& flag) { return texts.count(flag) || numbers.count(flag) || reals.count(flag) || flag == "--images"; };
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i], value;
    if (inference_flags && (flag == "--onednn" || flag == "--no-onednn")) {
      options.onednn = flag == "--onednn";
      continue;
    }
    const size_t equals = flag.find('=');
    if (!known(flag.substr(0, equals))) throw UsageError("unknown option '" + flag + "'; see --help");
    if (equals != std::string::npos) {
      value = flag.substr(equals + 1);
      flag.resize(equals);
    } else if (i + 1 < argc) {
      value = argv[++i];
    } else {
      throw UsageError(flag + ": expected a value");
    }
    options.given.insert(flag);
    if (flag == "--images") {
      options.images.push_back(value);
      while (i + 1 < argc && std::string(argv[i + 1]).compare(0, 2, "--")) options.images.push_back(argv[++i]);
    } else if (texts.count(flag)) {
      *texts[flag] = value;
    } else if (reals.count(flag)) {
      *reals[flag].first = real_number(flag, value, reals[flag].second);
    } else {
      *numbers[flag].first = whole_number(flag, value, numbers[flag].second);
    }
  }
  if (options.model.empty() || options.images.empty()) throw UsageError("--model and --images are needed; see --help");
  if (options.device != "cpu" && options.device != "gpu") throw UsageError("--device: expected cpu or gpu, got '" + options.device + "'");
  if (!options.threads) options.threads = usable_threads();
  return options;
}

std::string description_path(const std::string& folder) {
  if (!std::filesystem::is_directory(folder))
    throw Error(folder + ": no such directory; expected the one that tools/export_model.py wrote");
  return folder + "/inference.yml";
}

struct Result {
  std::string file_name, error;
  std::vector<int> class_ids;
  std::vector<float> scores;
};

// The bytes of the UTF-8 character that `text` begins with; 0 if it is none.
size_t character_length(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  const size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (byte(i) >> 6 != 2) return 0;
  }
  const bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
  const bool no_character = (first == 0xED && byte(1) > 0x9F) || (first == 0xF4 && byte(1) > 0x8F);
  return overlong || no_character ? 0 : length;
}

// `text`, where `character(result, piece)` adds each character and `other(result, byte)` each byte that is part of none.
template <typename Character, typename Other>
std::string by_characters(std::string_view text, const Character& character, const Other& other) {
  std::string result;
  while (!text.empty()) {
    const size_t length = character_length(text);
    if (length) {
      character(result, text.substr(0, length));
    } else {
      other(result, static_cast<uint8_t>(text[0]));
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return result;
}

void append(std::string& result, const char* format, unsigned value) {
  char text[16];
  std::snprintf(text, sizeof text, format, value);
  result += text;
}

std::string number(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);  // what float needs to come back the same
  return text;
}

std::string json(const std::vector<Result>& results, const std::vector<std::string>& labels) {
  auto list = [](const auto& values, const auto& text) {
    std::string joined;
    for (const auto& value : values) joined += (joined.empty() ? "" : ", ") + text(value);
    return "[" + joined + "]";
  };
  std::string text;
  for (const Result& result : results) {
    text += (text.empty() ? "[\n {\"file_name\": " : ",\n {\"file_name\": ") + json_text(result.file_name);
    if (result.error.empty()) {
      text += ", \"class_ids\": " + list(result.class_ids, [](int id) { return std::to_string(id); }) +
              ", \"scores\": " + list(result.scores, number) +
              ", \"label_names\": " + list(result.class_ids, [&](int id) { return json_text(labels[id]); }) + "}";
    } else {
      text += ", \"error\": " + json_text(result.error) + "}";
    }
  }
  return text + "\n]\n";
}

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point since) { return std::chrono::duration<double, std::milli>(Clock::now() - since).count(); }

class Program {
 public:
  Program(const Options& options, const Description& description, const MakeEngine& make_engine)
      : options_(options), description_(description), paths_(list_images(options.images)) {
    engine_ = make_engine(options_, description_);
    topk_ = std::min<int>(options.topk ? options.topk : description_.topk, static_cast<int>(description_.labels.size()));
  }

  // 0, or 1 if an image failed.
  int run() {
    // what an earlier run wrote stays until there is something to write
    if (!options_.json.empty() && !std::ofstream(options_.json, std::ios::binary | std::ios::app))
      throw Error(options_.json + ": cannot be written");
    say_threads(options_);
    for (size_t start = 0; start < paths_.size(); start += options_.batch_size) predict(start);
    if (!options_.json.empty()) {
      std::ofstream file(options_.json, std::ios::binary);
      if (!(file << json(results_, description_.labels)).flush()) throw Error(options_.json + ": cannot be written");
    }
    if (!run_ms_.empty()) print_latency();
    return std::any_of(results_.begin(), results_.end(), [](const Result& result) { return !result.error.empty(); });
  }

 private:
  // The batch that begins with paths_[start]. Images that preprocessing leaves at different sizes run one size at a time.
  void predict(size_t start) {
    const size_t end = std::min(start + options_.batch_size, paths_.size());
    std::map<std::array<int, 2>, std::pair<std::vector<size_t>, std::vector<float>>> by_size;
    for (size_t i = start; i < end; ++i) {
      results_.push_back({paths_[i], "", {}, {}});
      try {
        const Clock::time_point since = Clock::now();
        const Image image = read_image(paths_[i]);
        Input input;
        try {
          input = description_.preprocess(image);
        } catch (const Error& error) {
          throw Error(paths_[i] + ": " + error.what());
        }
        preprocess_ms_.push_back(milliseconds(since));
        auto& [members, values] = by_size[{input.height, input.width}];
        members.push_back(i);
        values.insert(values.end(), input.values.begin(), input.values.end());
      } catch (const Error& error) {
        results_[i].error = error.what();
      }
    }
    for (const auto& [size, group] : by_size) {
      const auto& [members, values] = group;
      const std::array<int, 4> shape = {static_cast<int>(members.size()), 3, size[0], size[1]};
      interpret(run(values, shape), members);
      if (options_.repeat) measure(values, shape);
    }
    for (size_t i = start; i < end; ++i) print(results_[i]);
  }

  // The engine's output, in parts of description_.batch images, the last one filled up with zeros, where the model takes no other number.
  std::vector<float> run(const std::vector<float>& values, std::array<int, 4> shape) {
    if (!description_.batch || shape[0] == description_.batch) return engine_->run(values, shape);
    const size_t part = values.size() / shape[0] * description_.batch, wanted = shape[0] * description_.labels.size();
    shape[0] = description_.batch;
    std::vector<float> scores;
    for (size_t start = 0; start < values.size(); start += part) {
      std::vector<float> padded(values.begin() + start, values.begin() + std::min(start + part, values.size()));
      padded.resize(part);
      const std::vector<float> output = engine_->run(padded, shape);
      scores.insert(scores.end(), output.begin(), output.end());
    }
    scores.resize(std::min(scores.size(), wanted));
    return scores;
  }

  void interpret(const std::vector<float>& scores, const std::vector<size_t>& members) {
    const size_t classes = description_.labels.size();
    if (scores.size() != members.size() * classes) {
      throw Error("the model's output has " + std::to_string(scores.size()) + " values; inference.yml has " + std::to_string(classes) +
                  " names for each of " + std::to_string(members.size()) + " images");
    }
    for (size_t row = 0; row < members.size(); ++row) {
      std::vector<float> values(scores.begin() + row * classes, scores.begin() + (row + 1) * classes);
      if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }))
        throw Error("the model's output is not finite");
      if (!are_told(values, description_.softmax)) {
        throw Error(description_.softmax ? "Model.softmax is true, but the program gives no probabilities; export again"
                                         : "Model.softmax is false, but the program gives probabilities; export again");
      }
      if (!description_.softmax) values = softmax(values);
      Result& result = results_[members[row]];
      result.class_ids = top_k(values, topk_);
      for (const int id : result.class_ids) result.scores.push_back(values[id]);
    }
  }

  void measure(const std::vector<float>& values, const std::array<int, 4>& shape) {
    if (run_ms_.empty()) {
      for (int i = 0; i < options_.warmup; ++i) run(values, shape);
    }
    for (int i = 0; i < options_.repeat; ++i) {
      const Clock::time_point since = Clock::now();
      run(values, shape);
      run_ms_.push_back(milliseconds(since));
      images_run_ += shape[0];
      largest_batch_ = std::max(largest_batch_, shape[0]);
    }
  }

  void print(const Result& result) const {
    if (!result.error.empty()) {
      std::cerr << "error: " << shown(result.error) << std::endl;
      return;
    }
    std::cout << shown(result.file_name) << ':';
    for (size_t i = 0; i < result.class_ids.size(); ++i) {
      char score[16];
      std::snprintf(score, sizeof score, "%.4f", result.scores[i]);
      std::cout << (i ? ", " : " ") << shown(description_.labels[result.class_ids[i]]) << ' ' << score;
    }
    std::cout << std::endl;
  }

  void print_latency() {
    std::sort(run_ms_.begin(), run_ms_.end());
    std::sort(preprocess_ms_.begin(), preprocess_ms_.end());
    double total = 0;
    for (const double ms : run_ms_) total += ms;
    auto quantile = [](const std::vector<double>& sorted, double q) { return sorted[std::lround(q * (sorted.size() - 1))]; };
    std::printf(
        "latency_ms: runs=%zu batch=%d threads=%d min=%.2f median=%.2f p95=%.2f p99=%.2f max=%.2f mean=%.2f images_per_s=%.1f "
        "preprocess_median=%.2f\n",
        run_ms_.size(), largest_batch_, options_.threads, run_ms_.front(), quantile(run_ms_, 0.5), quantile(run_ms_, 0.95),
        quantile(run_ms_, 0.99), run_ms_.back(), total / run_ms_.size(), 1000 * images_run_ / total, quantile(preprocess_ms_, 0.5));
  }

  const Options options_;
  const Description description_;
  const std::vector<std::string> paths_;
  std::unique_ptr<Engine> engine_;
  int topk_;
  std::vector<Result> results_;
  std::vector<double> run_ms_, preprocess_ms_;
  long images_run_ = 0;
  int largest_batch_ = 0;
};

}  // namespace

std::string json_text(std::string_view text) {
  auto character = [](std::string& result, std::string_view piece) {
    if (static_cast<uint8_t>(piece[0]) < 0x20) return append(result, "\\u%04x", static_cast<uint8_t>(piece[0]));
    if (piece == "\"" || piece == "\\") result += '\\';
    result += piece;
  };
  return '"' + by_characters(text, character, [](std::string& result, uint8_t byte) { append(result, "\\udc%02x", byte); }) + '"';
}

void say_threads(const Options& options) {
  if (options.device == "cpu" && !options.given.count("--threads")) std::cerr << threads_text() << std::endl;
}

std::vector<Tensor> Engine::run_named(const std::vector<Tensor>&, const std::vector<int>&) {
  throw Error("this program runs classifiers alone; deploy/cpp has one for detectors and segmentors");
}

std::string one_line(const std::string& text) {
  const size_t summary = text.find("Error Message Summary:");
  std::istringstream lines(summary == std::string::npos ? text : text.substr(summary + 22));
  std::string line;
  while (std::getline(lines, line)) {
    if (line.find_first_not_of("- \t\r") != std::string::npos) return line;
  }
  return text;
}

std::string shown(std::string_view text) {
  auto character = [](std::string& result, std::string_view piece) {
    const uint8_t first = static_cast<uint8_t>(piece[0]), last = static_cast<uint8_t>(piece.back());
    if (first < 0x20 || first == 0x7F) return append(result, "\\x%02x", first);
    if (first == 0xC2 && last < 0xA0) return append(result, "\\x%02x", last);
    result += piece;
  };
  return by_characters(text, character, [](std::string& result, uint8_t byte) { append(result, "\\x%02x", byte); });
}

int run_program(int argc, char** argv, bool inference_flags, const MakeEngine& make_engine) {
  for (int i = 1; i < argc; ++i) {
    if (argv[i] == std::string("--help")) {
      std::printf(HELP, argv[0], inference_flags ? INFERENCE_HELP : "");
      return 0;
    }
  }
  try {
    const Options options = parse(argc, argv, inference_flags);
    const Description description = read_description(description_path(options.model));
    check_options(options, description.task);
    if (description.task == Task::classification) return Program(options, description, make_engine).run();
    const std::vector<std::string> paths = list_images(options.images);
    const std::unique_ptr<Engine> engine = make_engine(options, description);
    return run_dense(options, description, paths, *engine);
  } catch (const UsageError& error) {
    std::cerr << "error: " << shown(error.what()) << std::endl;
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << shown(one_line(error.what())) << std::endl;
    return 1;
  }
}

}  // namespace nextvit
