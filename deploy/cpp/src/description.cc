#include "description.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "files.h"

namespace nextvit {
namespace {

// The arguments of a transform. Error for a key that it does not have.
class Arguments {
 public:
  Arguments(const std::string& transform, const YAML::Node& node, const std::set<std::string>& keys) : transform_(transform), node_(node) {
    for (const auto& entry : node) {
      if (!keys.count(entry.first.as<std::string>())) throw Error(transform + ": unknown key '" + entry.first.as<std::string>() + "'");
    }
  }

  template <typename T>
  T get(const std::string& key, const T& otherwise) const {
    if (!node_.IsMap() || !node_[key] || node_[key].IsNull()) return otherwise;
    try {
      return node_[key].as<T>();
    } catch (const YAML::Exception&) {
      throw Error(transform_ + ": " + key + ": a value of the wrong type");
    }
  }

  bool has(const std::string& key) const { return node_.IsMap() && node_[key] && !node_[key].IsNull(); }

  // One number, or two: {width, height}, each 1 or more.
  std::array<int, 2> size(const std::string& key) const {
    std::vector<int> values = has(key) && node_[key].IsSequence() ? get<std::vector<int>>(key, {}) : std::vector<int>(2, get(key, 0));
    if (values.size() != 2 || values[0] < 1 || values[1] < 1)
      throw Error(transform_ + ": " + key + ": expected one or two numbers of 1 or more");
    return {values[0], values[1]};
  }

  void refuse(const std::string& key, bool value) const {
    if (get(key, !value) == value) throw Error(transform_ + ": " + key + ": " + (value ? "true" : "false") + " is not supported");
  }

 private:
  std::string transform_;
  YAML::Node node_;
};

std::function<Image(Image)> resizing(const Arguments& arguments, PillowVersion pillow) {
  const auto filter = arguments.get<std::string>("interpolation", "bilinear"), backend = arguments.get<std::string>("backend", "cv2");
  check_filter(filter, backend);
  if (arguments.has("size") == arguments.has("resize_short")) throw Error("ResizeImage: expected either size or resize_short");
  const bool whole = arguments.has("size");
  const std::array<int, 2> given = arguments.size(whole ? "size" : "resize_short");
  return [=](Image image) {
    const auto [width, height] = whole ? given : short_side_size(image, given[0]);
    if (!whole && width == image.width && height == image.height) return image;
    return backend == "pil" ? resize(image, width, height, filter, pillow) : resize_opencv(image, width, height, filter);
  };
}

Normalization normalization(const Arguments& arguments, bool channels_first) {
  const auto order = arguments.get<std::string>("order", "chw");
  if ((order == "chw") != channels_first)
    throw Error("NormalizeImage: order '" + order + "' does not fit its place before or after ToCHWImage");
  const auto mean = arguments.get("mean", std::vector<float>{0.485f, 0.456f, 0.406f});
  const auto std = arguments.get("std", std::vector<float>{0.229f, 0.224f, 0.225f});
  if (mean.size() != 3 || std.size() != 3 || std::count(std.begin(), std.end(), 0.0f)) {
    throw Error("NormalizeImage: mean and std need three values each, those of std not 0");
  }
  Normalization result;
  result.scale = static_cast<float>(arguments.get("scale", 1 / 255.0));
  std::copy(mean.begin(), mean.end(), result.mean.begin());
  std::copy(std.begin(), std.end(), result.std.begin());
  return result;
}

Preprocess preprocessing(const YAML::Node& transforms, PillowVersion pillow) {
  Preprocess result;
  bool normalized = false, channels_first = false, first = true;
  if (!transforms.IsSequence()) throw Error("PreProcess: expected a list transform_ops");
  for (const auto& entry : transforms) {
    if (!entry.IsMap()) throw Error("transform_ops: expected a name and its arguments in each entry");
    for (const auto& transform : entry) {
      const auto name = transform.first.as<std::string>();
      const YAML::Node& node = transform.second;
      if (name == "DecodeImage") {
        const Arguments arguments(name, node, {"to_rgb", "channel_first", "to_np", "backend"});
        arguments.refuse("channel_first", true);
        if (!first) throw Error("DecodeImage must be the first transform");
        if (!arguments.get("to_rgb", true)) result.steps.push_back(swap_red_and_blue);
      } else if (name == "ToCHWImage") {  // the result is channels-first anyway
        channels_first = true;
      } else if (name == "NormalizeImage") {
        if (normalized) throw Error("NormalizeImage: twice");
        const Arguments arguments(name, node, {"scale", "mean", "std", "order", "output_fp16", "channel_num"});
        arguments.refuse("output_fp16", true);
        result.normalization = normalization(arguments, channels_first);
        normalized = true;
      } else if (name == "ResizeImage" || name == "CropImage") {
        if (normalized || channels_first) throw Error(name + " after NormalizeImage or ToCHWImage is not supported");
        if (name == "ResizeImage") {
          result.steps.push_back(resizing({name, node, {"size", "resize_short", "interpolation", "backend", "return_numpy"}}, pillow));
        } else {
          const auto [width, height] = Arguments(name, node, {"size"}).size("size");
          result.steps.push_back([width = width, height = height](const Image& image) { return center_crop(image, width, height); });
        }
      } else {
        throw Error("unknown transform '" + name + "'; this program knows DecodeImage, ResizeImage, CropImage, NormalizeImage, ToCHWImage");
      }
      first = false;
    }
  }
  return result;
}

int whole_side(const std::string& place, const YAML::Node& node) {
  const int side = node.as<int>();
  if (side < 1 || side > 1 << 20) throw Error(place + ": expected whole numbers from 1 to 1048576, got " + std::to_string(side));
  return side;
}

Size two_sides(const std::string& place, const YAML::Node& node) {
  if (!node.IsSequence() || node.size() != 2) throw Error(place + ": expected 2 sizes");
  return {whole_side(place, node[0]), whole_side(place, node[1])};
}

DenseStep dense_step(const std::string& name, const YAML::Node& node) {
  DenseStep step{};
  if (name == "Resize") {
    const Arguments arguments(name, node, {"scale", "keep_ratio", "ratio_range", "multiscale_mode"});
    YAML::Node scale = node["scale"];
    if (scale.IsSequence() && scale.size() == 1) scale = scale[0];
    if (arguments.has("ratio_range") || (scale.IsSequence() && scale.size() && scale[0].IsSequence()))
      throw Error("Resize: leaves the size to chance, which only training does");
    step.kind = DenseStep::Kind::resize;
    step.sizes = two_sides("Resize: scale", scale);
    step.keep_ratio = arguments.get("keep_ratio", true);
  } else if (name == "Normalize") {
    const Arguments arguments(name, node, {"mean", "std"});
    const auto mean = arguments.get("mean", std::vector<float>{123.675f, 116.28f, 103.53f});
    const auto std = arguments.get("std", std::vector<float>{58.395f, 57.12f, 57.375f});
    if (mean.size() != 3 || std.size() != 3 || !std::all_of(std.begin(), std.end(), [](float x) { return x > 0; }))
      throw Error("Normalize: mean and std need three values each, those of std above 0");
    step.kind = DenseStep::Kind::normalize;
    std::copy(mean.begin(), mean.end(), step.colours.mean.begin());
    std::copy(std.begin(), std.end(), step.colours.std.begin());
  } else if (name == "Pad") {
    const Arguments arguments(name, node, {"size", "size_divisor"});
    if (arguments.has("size") == arguments.has("size_divisor")) throw Error("Pad: expected either size or size_divisor");
    step.kind = DenseStep::Kind::pad;
    if (arguments.has("size")) step.sizes = two_sides("Pad: size", node["size"]);
    if (arguments.has("size_divisor")) step.divisor = whole_side("Pad: size_divisor", node["size_divisor"]);
  } else {
    throw Error("unknown transform '" + name + "'; of a detector or segmentor this program knows Resize, Normalize, Pad");
  }
  return step;
}

DensePreprocess dense_preprocessing(const YAML::Node& transforms) {
  DensePreprocess result;
  if (!transforms.IsSequence()) throw Error("PreProcess: expected a list transform_ops");
  bool normalized = false;
  for (const auto& entry : transforms) {
    if (!entry.IsMap()) throw Error("transform_ops: expected a name and its arguments in each entry");
    for (const auto& transform : entry) {
      result.steps.push_back(dense_step(transform.first.as<std::string>(), transform.second));
      const DenseStep::Kind kind = result.steps.back().kind;
      if (kind == DenseStep::Kind::resize && normalized) throw Error("Resize needs 8-bit pixels; put it before Normalize and Pad");
      normalized |= kind != DenseStep::Kind::resize;
    }
  }
  return result;
}

// As deploy/python tells them apart: by what the export says, or by what goes in and comes out.
Task task_of(const YAML::Node& yaml) {
  const YAML::Node said = yaml["Model"] ? yaml["Model"]["task"] : YAML::Node(YAML::NodeType::Undefined);
  if (said && !said.IsNull()) {
    const auto name = said.as<std::string>();
    for (const Task task : {Task::classification, Task::detection, Task::segmentation}) {
      if (name == task_name(task)) return task;
    }
    throw Error("Model: task: expected classification, detection or segmentation, got '" + name + "'");
  }
  const YAML::Node made = yaml["Export"];
  if (!made || !made.IsMap()) return Task::classification;
  if (made["inputs"] && made["inputs"].IsMap() && made["inputs"]["im_shape"]) return Task::detection;
  if (made["outputs"] && made["outputs"].IsSequence() && made["outputs"].as<std::vector<std::string>>() == std::vector<std::string>{"labels", "logits"})
    return Task::segmentation;
  return Task::classification;
}

// What detectors and segmentors say.
void describe_dense(const YAML::Node& yaml, Description& result) {
  const bool detects = result.task == Task::detection;
  result.dense = dense_preprocessing(yaml["PreProcess"]["transform_ops"]);
  result.labels = yaml["PostProcess"]["label_list"].as<std::vector<std::string>>();
  result.outputs = yaml["Export"]["outputs"].as<std::vector<std::string>>();
  const YAML::Node inputs = yaml["Export"]["inputs"];
  if (!inputs || !inputs.IsMap() || !inputs.size()) throw Error("Export: inputs: expected shapes by name");
  const YAML::Node shape = detects ? inputs["image"] : inputs.begin()->second;
  if (!shape || shape.size() != 4) throw Error("Export: inputs: expected four sizes or nulls");
  result.dense.sides = {shape[2].as<int>(0), shape[3].as<int>(0)};
  result.dense.fills = detects;
  result.batch = std::max(shape[0].as<int>(0), 1);
  if (result.batch > 1 << 16) throw Error("Export: inputs: a batch of " + std::to_string(result.batch));
  if (const YAML::Node input = yaml["Model"] ? yaml["Model"]["input"] : YAML::Node()) {
    if (input.IsMap()) result.dense.min_size = input["min_size"].as<int>(1);
  }
  if (detects) {
    result.score_threshold = yaml["PostProcess"]["score_threshold"].as<float>();
    if (!(result.score_threshold >= 0 && result.score_threshold <= 1)) throw Error("score_threshold: expected a number from 0 to 1");
  } else {
    result.input = inputs.begin()->first.as<std::string>();
    result.dense.classes = static_cast<int>(result.labels.size());
    if (std::find(result.outputs.begin(), result.outputs.end(), "logits") == result.outputs.end())
      throw Error("Export: outputs: expected logits among them");
  }
}

Description described(const YAML::Node& yaml) {
  Description result;
  PillowVersion pillow = {13, 0};
  if (const YAML::Node versions = yaml["Versions"]) {
    result.exporter = versions["paddle"].as<std::string>(result.exporter);
    std::sscanf(versions["pillow"].as<std::string>("").c_str(), "%d.%d", &pillow[0], &pillow[1]);
  }
  if (const YAML::Node made = yaml["Export"]) result.precision = made["precision"].as<std::string>(result.precision);
  for (const auto& file : yaml["Files"]) result.files[file.first.as<std::string>()] = file.second["sha256"].as<std::string>();
  result.task = task_of(yaml);
  if (result.task != Task::classification) {
    describe_dense(yaml, result);
    return result;
  }
  result.preprocess = preprocessing(yaml["PreProcess"]["transform_ops"], pillow);
  const YAML::Node input = yaml["Model"]["input"], shape = input["shape"];
  result.preprocess.min_size = input["min_size"].as<int>(1);
  if (shape.size() == 4) {  // null, which is no number, where any goes
    result.batch = shape[0].as<int>(0);
    if (result.batch < 0) throw Error("shape: a batch of " + std::to_string(result.batch));
    result.preprocess.size = {shape[2].as<int>(0), shape[3].as<int>(0)};
  }
  result.softmax = yaml["Model"]["softmax"].as<bool>();
  result.labels = yaml["PostProcess"]["Topk"]["label_list"].as<std::vector<std::string>>();
  result.topk = yaml["PostProcess"]["Topk"]["topk"].as<int>();
  if (result.topk < 1) throw Error("topk: expected 1 or more, got " + std::to_string(result.topk));
  const int classes = yaml["Model"]["class_num"].as<int>();
  if (classes < 1) throw Error("class_num: expected 1 or more, got " + std::to_string(classes));
  if (static_cast<int>(result.labels.size()) != classes) {
    throw Error("label_list has " + std::to_string(result.labels.size()) + " names, the model " + std::to_string(classes) + " classes");
  }
  return result;
}

}  // namespace

const char* task_name(Task task) {
  return task == Task::classification ? "classification" : task == Task::detection ? "detection" : "segmentation";
}

Description read_description(const std::string& path) {
  const std::string text = read_file(path);
  try {
    return described(YAML::Load(text));
  } catch (const YAML::Exception& error) {
    throw Error(path + ": not a description of an exported model: " + error.what());
  } catch (const Error& error) {
    throw Error(path + ": " + error.what());
  }
}

std::vector<std::string> model_files(const Description& description, const std::string& folder, const std::vector<std::string>& endings) {
  std::vector<std::string> paths;
  for (const std::string& ending : endings) {
    for (const auto& [name, hash] : description.files) {
      if (std::filesystem::path(name).extension() != ending) continue;
      paths.push_back((std::filesystem::path(folder) / name).string());
      if (sha256(read_file(paths.back())) != hash) {
        throw Error(paths.back() + ": does not match inference.yml, so it is damaged or of another export; export or copy again");
      }
    }
  }
  return paths;
}

}  // namespace nextvit
