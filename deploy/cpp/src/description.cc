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

Description described(const YAML::Node& yaml) {
  Description result;
  PillowVersion pillow = {13, 0};
  if (const YAML::Node versions = yaml["Versions"]) {
    result.exporter = versions["paddle"].as<std::string>(result.exporter);
    std::sscanf(versions["pillow"].as<std::string>("").c_str(), "%d.%d", &pillow[0], &pillow[1]);
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
  if (const YAML::Node made = yaml["Export"]) result.precision = made["precision"].as<std::string>(result.precision);
  for (const auto& file : yaml["Files"]) result.files[file.first.as<std::string>()] = file.second["sha256"].as<std::string>();
  return result;
}

}  // namespace

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
