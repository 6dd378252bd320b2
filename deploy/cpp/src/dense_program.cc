#include "dense_program.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>

#include "image.h"

namespace nextvit {
namespace {

constexpr size_t SHOWN = 5;  // objects or classes in a line
constexpr double OBJECT_OPACITY = 0.45, LABEL_OPACITY = 0.55;
constexpr int SMALLEST = 512;  // to which side a small picture of objects grows by whole factors

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point since) { return std::chrono::duration<double, std::milli>(Clock::now() - since).count(); }

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string exact(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

std::string mask_text(Size image, const std::string& counts) {
  return "{\"size\": [" + std::to_string(image[0]) + ", " + std::to_string(image[1]) + "], \"counts\": " + json_text(counts) + "}";
}

struct Object {
  int label;
  float score;
  std::array<float, 4> box;
  Mask mask;
};

// For each path the beginning of the names of its pictures: its folders below the one that holds all, and its name, with the ending only where
// another differs by nothing else.
std::vector<std::filesystem::path> picture_stems(const std::vector<std::string>& paths) {
  namespace fs = std::filesystem;
  std::vector<fs::path> whole;
  for (const std::string& path : paths) whole.push_back(fs::absolute(path).lexically_normal());
  fs::path root = whole[0].parent_path();
  for (const fs::path& path : whole) {
    while (!root.empty() && root != root.root_path() && path.lexically_relative(root).native().substr(0, 2) == "..") root = root.parent_path();
  }
  std::map<fs::path, std::vector<fs::path>> same;
  auto bare = [&](const fs::path& path) { return path.lexically_relative(root).replace_extension(); };
  for (const fs::path& path : whole) {
    auto& members = same[bare(path)];
    if (std::find(members.begin(), members.end(), path) == members.end()) members.push_back(path);
  }
  std::vector<fs::path> stems;
  for (const fs::path& path : whole) stems.push_back(same[bare(path)].size() > 1 ? path.lexically_relative(root) : bare(path));
  return stems;
}

void mix(uint8_t* pixel, const std::array<uint8_t, 3>& colour, double opacity) {
  for (int c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(std::nearbyint((1 - opacity) * pixel[c] + opacity * colour[c]));
}

class DenseProgram {
 public:
  DenseProgram(const Options& options, const Description& description, const std::vector<std::string>& paths, Engine& engine)
      : options_(options), description_(description), paths_(paths), engine_(engine), prepare_(description.dense) {
    prepare_.memory = 1e9 * options.memory;
    score_threshold_ = options.score_threshold < 0 ? description.score_threshold : options.score_threshold;
    if (description.task == Task::detection) {
      masks_ = std::find(description.outputs.begin(), description.outputs.end(), "masks") != description.outputs.end();
      wanted_ = masks_ ? std::vector<int>{0, 1} : std::vector<int>{0};
      if (options.mask_threshold >= 0 && !masks_) throw Error("--mask-threshold: this detector gives boxes alone");
    } else {
      const auto logits = std::find(description.outputs.begin(), description.outputs.end(), "logits");
      wanted_ = {static_cast<int>(logits - description.outputs.begin())};
    }
    if (!options.out.empty()) stems_ = picture_stems(paths);
  }

  int run() {
    if (!options_.json.empty() && !std::ofstream(options_.json, std::ios::binary | std::ios::app))
      throw Error(options_.json + ": cannot be written");
    say_threads(options_);
    bool failed = false;
    std::string told;
    for (size_t i = 0; i < paths_.size(); ++i) {
      told += told.empty() ? "[\n " : ",\n ";
      try {
        told += answer(i);
      } catch (const std::exception& error) {
        const std::string reason = one_line(error.what());
        const std::string named = reason.compare(0, paths_[i].size(), paths_[i]) ? paths_[i] + ": " + reason : reason;
        std::cerr << "error: " << shown(named) << std::endl;
        told += "{\"file_name\": " + json_text(paths_[i]) + ", \"error\": " + json_text(named) + "}";
        failed = true;
      }
    }
    if (!options_.json.empty()) {
      std::ofstream file(options_.json, std::ios::binary);
      if (!(file << told << "\n]\n").flush()) throw Error(options_.json + ": cannot be written");
    }
    if (options_.repeat && !model_ms_.empty()) print_times();
    if (!options_.out.empty()) std::cout << "drawn in " << shown(options_.out) << std::endl;
    return failed;
  }

 private:
  // What JSON says of the image paths_[i], which is printed, and drawn if that is wanted.
  std::string answer(size_t i) {
    const Clock::time_point start = Clock::now();
    const Image image = read_image(paths_[i]);
    const DenseInput input = prepare_(image);
    const double prepared = milliseconds(start);
    const std::vector<Tensor> tensors = inputs(input);
    const Clock::time_point begun = Clock::now();
    const std::vector<Tensor> outputs = engine_.run_named(tensors, wanted_);
    const double modelled = milliseconds(begun);
    const Clock::time_point after = Clock::now();
    const Size size{image.height, image.width};
    std::string told = "{\"file_name\": " + json_text(paths_[i]) + ", \"height\": " + std::to_string(size[0]) +
                       ", \"width\": " + std::to_string(size[1]);
    if (description_.task == Task::detection) {
      const std::vector<Object> objects = objects_of(outputs, size);
      told += ", \"objects\": [" + objects_text(objects, size) + "]}";
      keep_times(prepared, modelled, milliseconds(after));
      print(i, std::to_string(objects.size()) + " objects" + (objects.empty() ? "" : ": ") + best_objects(objects));
      if (!stems_.empty()) draw_objects(image, objects, stems_[i]);
    } else {
      const std::vector<int> labels = labels_of(outputs.at(0), input, size);
      const std::vector<ClassArea> areas = class_areas(labels, size, static_cast<int>(description_.labels.size()));
      told += ", \"classes\": [" + areas_text(areas, size) + "]}";
      keep_times(prepared, modelled, milliseconds(after));
      print(i, largest_areas(areas, size));
      if (!stems_.empty()) draw_labels(image, labels, stems_[i]);
    }
    measure(tensors);
    return told;
  }

  std::vector<Tensor> inputs(const DenseInput& input) const {
    const auto [height, width] = input.size;
    if (description_.task == Task::detection) {
      return {{"image", {1, 3, height, width}, input.values},
              {"im_shape", {1, 2}, {static_cast<float>(input.shape[0]), static_cast<float>(input.shape[1])}},
              {"scale_factor", {1, 2}, {input.scale[0], input.scale[1]}}};
    }
    Tensor tensor{description_.input, {description_.batch, 3, height, width}, {}};
    for (int i = 0; i < description_.batch; ++i) tensor.values.insert(tensor.values.end(), input.values.begin(), input.values.end());
    return {tensor};
  }

  std::vector<Object> objects_of(const std::vector<Tensor>& outputs, Size size) const {
    const Tensor& table = outputs.at(0);
    if (table.shape.size() != 2 || table.shape[1] != 6) throw Error("the model's objects have another shape than [n, 6]");
    const int cells = masks_ && outputs.at(1).shape.size() == 3 ? outputs[1].shape[2] : 0;
    if (masks_ && (!cells || outputs[1].values.size() != static_cast<size_t>(table.shape[0]) * cells * cells))
      throw Error("the model's masks have another shape than [n, m, m]");
    const float threshold = options_.mask_threshold < 0 ? 0.5f : static_cast<float>(options_.mask_threshold);
    std::vector<Object> objects;
    for (int i = 0; i < table.shape[0]; ++i) {
      const float* row = table.values.data() + 6 * i;
      if (!(row[1] >= static_cast<float>(score_threshold_))) continue;
      Object object{static_cast<int>(row[0]), row[1], {row[2], row[3], row[4], row[5]}, {}};
      if (object.label < 0 || object.label >= static_cast<int>(description_.labels.size()))
        throw Error("the model gives class " + std::to_string(object.label) + " of " + std::to_string(description_.labels.size()));
      if (masks_) object.mask = paste(outputs[1].values.data() + static_cast<size_t>(i) * cells * cells, cells, object.box, size, threshold);
      objects.push_back(std::move(object));
    }
    return objects;
  }

  std::vector<int> labels_of(const Tensor& scores, const DenseInput& input, Size size) const {
    const int classes = static_cast<int>(description_.labels.size());
    if (scores.shape.size() != 4 || scores.shape[1] != classes) {
      throw Error("the model's scores are not of " + std::to_string(classes) + " classes, of which there are names");
    }
    return best_class(scores.values, classes, {scores.shape[2], scores.shape[3]}, input.size, input.shape, size);
  }

  std::string objects_text(const std::vector<Object>& objects, Size size) const {
    std::string text;
    for (const Object& object : objects) {
      text += (text.empty() ? "" : ", ") + ("{\"class_id\": " + std::to_string(object.label)) +
              ", \"label_name\": " + json_text(description_.labels[object.label]) + ", \"score\": " + exact(object.score) + ", \"box\": [";
      for (int k = 0; k < 4; ++k) text += (k ? ", " : "") + exact(object.box[k]);
      text += "]" + (masks_ ? ", \"mask\": " + mask_text(size, run_lengths(object.mask, size)) : "") + "}";
    }
    return text;
  }

  std::string areas_text(const std::vector<ClassArea>& areas, Size size) const {
    std::string text;
    for (const ClassArea& area : areas) {
      text += (text.empty() ? "" : ", ") + ("{\"class_id\": " + std::to_string(area.id)) +
              ", \"label_name\": " + json_text(description_.labels[area.id]) + ", \"pixels\": " + std::to_string(area.pixels) +
              ", \"share\": " + exact(area.pixels / (static_cast<double>(size[0]) * size[1])) + ", \"mask\": " + mask_text(size, area.counts) +
              "}";
    }
    return text;
  }

  std::string best_objects(const std::vector<Object>& objects) const {
    std::string text;
    for (size_t i = 0; i < std::min(objects.size(), SHOWN); ++i)
      text += (i ? ", " : "") + shown(description_.labels[objects[i].label]) + " " + fixed(objects[i].score, 4);
    return text;
  }

  std::string largest_areas(const std::vector<ClassArea>& areas, Size size) const {
    std::string text;
    for (size_t i = 0; i < std::min(areas.size(), SHOWN); ++i) {
      const double share = areas[i].pixels / (static_cast<double>(size[0]) * size[1]);
      text += (i ? ", " : "") + shown(description_.labels[areas[i].id]) + " " + fixed(100 * share, 1) + " %";
    }
    return text;
  }

  void print(size_t i, const std::string& line) const { std::cout << shown(paths_[i]) << ": " << line << std::endl; }

  std::string picture_path(const std::filesystem::path& stem, const char* ending) const {
    const std::filesystem::path path = std::filesystem::path(options_.out) / (stem.string() + ending);
    std::filesystem::create_directories(path.parent_path());
    return path.string();
  }

  // Masks and boxes, each in a colour of its own.
  void draw_objects(const Image& image, const std::vector<Object>& objects, const std::filesystem::path& stem) const {
    const int factor = std::max(1, SMALLEST / std::max(image.width, image.height));
    Image picture(image.width * factor, image.height * factor);
    for (int y = 0; y < picture.height; ++y) {
      for (int x = 0; x < picture.width; ++x) std::copy_n(image.at(x / factor, y / factor), 3, picture.at(x, y));
    }
    const auto colours = palette(static_cast<int>(objects.size()));
    for (size_t i = 0; i < objects.size(); ++i) {
      const Mask& mask = objects[i].mask;
      for (int y = 0; y < mask.rows * factor; ++y) {
        for (int x = 0; x < mask.columns * factor; ++x) {
          if (mask.part[static_cast<size_t>(y / factor) * mask.columns + x / factor])
            mix(picture.at(mask.left * factor + x, mask.top * factor + y), colours[i], OBJECT_OPACITY);
        }
      }
    }
    for (size_t i = 0; i < objects.size(); ++i) draw_box(picture, objects[i].box, factor, colours[i]);
    write_png(picture_path(stem, "_objects.png"), picture);
  }

  static void draw_box(Image& picture, const std::array<float, 4>& box, int factor, const std::array<uint8_t, 3>& colour) {
    auto side = [&](int k, int size) { return static_cast<int>(std::clamp(factor * box[k], -1.0f, static_cast<float>(size))); };
    for (const float value : box) {
      if (!std::isfinite(value)) return;
    }
    const int left = side(0, picture.width), top = side(1, picture.height), right = side(2, picture.width), bottom = side(3, picture.height);
    auto dot = [&](int x, int y) {
      if (x >= 0 && y >= 0 && x < picture.width && y < picture.height) std::copy(colour.begin(), colour.end(), picture.at(x, y));
    };
    for (int x = left; x <= right; ++x) dot(x, top), dot(x, bottom);
    for (int y = top; y <= bottom; ++y) dot(left, y), dot(right, y);
  }

  void draw_labels(const Image& image, const std::vector<int>& labels, const std::filesystem::path& stem) const {
    const int classes = static_cast<int>(description_.labels.size());
    const auto colours = palette(classes);
    const auto found = std::find(description_.labels.begin(), description_.labels.end(), "background");
    const int background = found == description_.labels.end() ? -1 : static_cast<int>(found - description_.labels.begin());
    Image picture = image;
    for (size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] != background) mix(picture.pixels.data() + 3 * i, colours[labels[i]], LABEL_OPACITY);
    }
    write_png(picture_path(stem, "_overlay.png"), picture);
    write_labels_png(picture_path(stem, "_labels.png"), labels, image.width, image.height, classes);
  }

  void keep_times(double prepared, double modelled, double after) {
    prepare_ms_.push_back(prepared);
    model_ms_.push_back(modelled);
    after_ms_.push_back(after);
  }

  void measure(const std::vector<Tensor>& tensors) {
    if (!options_.repeat) return;
    for (int i = 0; run_ms_.empty() && i < options_.warmup; ++i) engine_.run_named(tensors, wanted_);
    for (int i = 0; i < options_.repeat; ++i) {
      const Clock::time_point since = Clock::now();
      engine_.run_named(tensors, wanted_);
      run_ms_.push_back(milliseconds(since));
    }
  }

  void print_times() {
    std::sort(run_ms_.begin(), run_ms_.end());
    double total = 0;
    for (const double ms : run_ms_) total += ms;
    auto quantile = [&](double q) { return run_ms_[std::lround(q * (run_ms_.size() - 1))]; };
    std::printf("latency_ms: runs=%zu batch=1 threads=%d min=%.2f median=%.2f p95=%.2f p99=%.2f max=%.2f mean=%.2f images_per_s=%.1f\n",
                run_ms_.size(), options_.threads, run_ms_.front(), quantile(0.5), quantile(0.95), quantile(0.99), run_ms_.back(),
                total / run_ms_.size(), 1000 * run_ms_.size() / total);
    const double prepared = median(prepare_ms_), modelled = median(model_ms_), after = median(after_ms_);
    std::printf("image_ms: images=%zu preprocessing=%.2f model=%.2f postprocessing=%.2f postprocessing_share=%.1f%%\n", model_ms_.size(),
                prepared, modelled, after, 100 * after / std::max(prepared + modelled + after, 1e-9));
    std::fflush(stdout);
  }

  const Options& options_;
  const Description& description_;
  const std::vector<std::string>& paths_;
  Engine& engine_;
  DensePreprocess prepare_;
  double score_threshold_ = 0;
  bool masks_ = false;
  std::vector<int> wanted_;  // places of the outputs
  std::vector<std::filesystem::path> stems_;
  std::vector<double> prepare_ms_, model_ms_, after_ms_, run_ms_;
};

}  // namespace

int run_dense(const Options& options, const Description& description, const std::vector<std::string>& paths, Engine& engine) {
  return DenseProgram(options, description, paths, engine).run();
}

}  // namespace nextvit
