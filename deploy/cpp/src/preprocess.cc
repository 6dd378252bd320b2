#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <map>

#ifdef NEXTVIT_OPENCV
#include <opencv2/imgproc.hpp>
#endif

namespace nextvit {
namespace {

constexpr double PI = 3.14159265358979323846;
constexpr int PRECISION_BITS = 32 - 8 - 2;  // of a coefficient: 8 bits are the pixel's, 2 are for the sign and overshoot

double sinc(double x) { return x == 0 ? 1 : std::sin(x * PI) / (x * PI); }

double box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

double bilinear(double x) { return std::max(0.0, 1 - std::abs(x)); }

double hamming(double x) {
  x = std::abs(x);
  return x == 0 ? 1 : x >= 1 ? 0 : std::sin(x * PI) / (x * PI) * (0.54 + 0.46 * std::cos(x * PI));
}

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  return x < 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

struct Filter {
  double (*weight)(double);
  double support;
};

const std::map<std::string, Filter> FILTERS = {
    {"box", {box, 0.5}}, {"bilinear", {bilinear, 1}}, {"hamming", {hamming, 1}}, {"bicubic", {bicubic, 2}}, {"lanczos", {lanczos, 3}}};

// What one output pixel takes: input pixels first, first + 1, ... times these weights.
struct Taps {
  int first;
  std::vector<int32_t> weights;
};

std::vector<Taps> taps(int in, int out, const Filter& filter) {
  const double scale = static_cast<double>(in) / out, widened = std::max(scale, 1.0), support = filter.support * widened;
  std::vector<Taps> result(out);
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(center - support + 0.5));
    const int last = std::min(in, static_cast<int>(center + support + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int j = first; j < last; ++j) {
      weights.push_back(filter.weight((j - center + 0.5) * (1 / widened)));
      sum += weights.back();
    }
    result[i].first = first;
    for (double weight : weights) {
      if (sum != 0) weight /= sum;
      result[i].weights.push_back(static_cast<int32_t>(weight * (1 << PRECISION_BITS) + (weight < 0 ? -0.5 : 0.5)));
    }
  }
  return result;
}

// The output pixel's three channels, from pixels `stride` bytes apart.
void combine(const uint8_t* source, size_t stride, const std::vector<int32_t>& weights, uint8_t* target) {
  int32_t sums[3] = {1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1)};
  for (const int32_t weight : weights) {
    for (int c = 0; c < 3; ++c) sums[c] += source[c] * weight;
    source += stride;
  }
  for (int c = 0; c < 3; ++c) target[c] = static_cast<uint8_t>(std::clamp(sums[c] >> PRECISION_BITS, 0, 255));
}

Image resize_rows(const Image& image, int width, const Filter& filter) {
  if (width == image.width) return image;
  Image result(width, image.height);
  const std::vector<Taps> columns = taps(image.width, width, filter);
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < width; ++x) combine(image.at(columns[x].first, y), 3, columns[x].weights, result.at(x, y));
  }
  return result;
}

Image resize_columns(const Image& image, int height, const Filter& filter) {
  if (height == image.height) return image;
  Image result(image.width, height);
  const std::vector<Taps> rows = taps(image.height, height, filter);
  const size_t stride = static_cast<size_t>(image.width) * 3;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < image.width; ++x) combine(image.at(x, rows[y].first), stride, rows[y].weights, result.at(x, y));
  }
  return result;
}

Image resize_nearest(const Image& image, int width, int height) {
  auto positions = [](int in, int out) {  // summed up step by step: Pillow's rounding errors are part of its result
    const double step = static_cast<double>(in) / out;
    std::vector<int> result;
    double position = step * 0.5;
    for (int i = 0; i < out; ++i, position += step) result.push_back(std::min(static_cast<int>(position), in - 1));
    return result;
  };
  Image result(width, height);
  const std::vector<int> columns = positions(image.width, width), rows = positions(image.height, height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) std::copy_n(image.at(columns[x], rows[y]), 3, result.at(x, y));
  }
  return result;
}

#ifdef NEXTVIT_OPENCV
const std::map<std::string, int> OPENCV_FILTERS = {{"nearest", cv::INTER_NEAREST},
                                                   {"bilinear", cv::INTER_LINEAR},
                                                   {"area", cv::INTER_AREA},
                                                   {"bicubic", cv::INTER_CUBIC},
                                                   {"lanczos", cv::INTER_LANCZOS4}};
#endif

}  // namespace

Image::Image(int width, int height) : width(width), height(height) {
  if (width < 1 || height < 1 || static_cast<long long>(width) * height > MAX_PIXELS) {
    throw Error(std::to_string(width) + " x " + std::to_string(height) + " pixels; expected 1 to " + std::to_string(MAX_PIXELS));
  }
  pixels.resize(static_cast<size_t>(width) * height * 3);
}

void check_filter(const std::string& filter, const std::string& backend) {
  if (backend == "pil" && (filter == "nearest" || FILTERS.count(filter))) return;
  if (backend == "pil") throw Error("interpolation: backend pil has no '" + filter + "'");
#ifdef NEXTVIT_OPENCV
  if (OPENCV_FILTERS.count(filter)) return;
  throw Error("interpolation: backend cv2 has no '" + filter + "'");
#else
  throw Error("`backend: cv2` needs this program built with -DWITH_OPENCV=ON; or export from a configuration with `backend: pil`");
#endif
}

Image resize(const Image& image, int width, int height, const std::string& filter, PillowVersion pillow) {
  check_filter(filter, "pil");
  if (width == image.width && height == image.height) return image;
  if (filter == "nearest") return resize_nearest(image, width, height);
  const bool tall = pillow >= PillowVersion{13, 0}   ? image.height - height > 2 * (image.width - width)
                    : pillow >= PillowVersion{12, 2} ? image.height > 100 * image.width
                                                     : false;
  const Filter& kernel = FILTERS.at(filter);
  return height < image.height && tall ? resize_rows(resize_columns(image, height, kernel), width, kernel)
                                       : resize_columns(resize_rows(image, width, kernel), height, kernel);
}

Image resize_opencv([[maybe_unused]] const Image& image, [[maybe_unused]] int width, [[maybe_unused]] int height,
                    const std::string& filter) {
  check_filter(filter, "cv2");
#ifdef NEXTVIT_OPENCV
  Image result(width, height);
  const cv::Mat source(image.height, image.width, CV_8UC3, const_cast<uint8_t*>(image.pixels.data()));
  cv::Mat target(height, width, CV_8UC3, result.pixels.data());
  cv::resize(source, target, target.size(), 0, 0, OPENCV_FILTERS.at(filter));
  return result;
#else
  return {};
#endif
}

std::array<int, 2> short_side_size(const Image& image, int side) {
  const double height = image.height, width = image.width;
  const double length = width <= height ? side * height / width : side * width / height;
  if (length > MAX_PIXELS) throw Error("the longer side would become " + std::to_string(static_cast<long long>(length)) + " pixels");
  const int longer = static_cast<int>(length);
  return width <= height ? std::array<int, 2>{side, longer} : std::array<int, 2>{longer, side};
}

Image center_crop(const Image& image, int width, int height) {
  // Where the image is smaller, half of what is missing, rounded down, is black before it; else half of the rest, rounded to even, is cut.
  auto offset = [](int have, int want) {
    return have < want ? -((want - have) / 2) : static_cast<int>(std::nearbyint((have - want) / 2.0));
  };
  const int left = offset(image.width, width), top = offset(image.height, height);
  const int begin = std::max(0, -left), end = std::min(width, image.width - left);
  Image result(width, height);
  for (int y = std::max(0, -top); y < std::min(height, image.height - top); ++y) {
    std::copy(image.at(begin + left, y + top), image.at(end + left, y + top), result.at(begin, y));
  }
  return result;
}

Image swap_red_and_blue(Image image) {
  for (size_t i = 0; i < image.pixels.size(); i += 3) std::swap(image.pixels[i], image.pixels[i + 2]);
  return image;
}

Input normalize(const Image& image, const Normalization& normalization) {
  const size_t area = static_cast<size_t>(image.width) * image.height;
  Input input{image.height, image.width, std::vector<float>(3 * area)};
  for (int c = 0; c < 3; ++c) {
    float values[256];
    for (int pixel = 0; pixel < 256; ++pixel) {
      values[pixel] = (static_cast<float>(pixel) * normalization.scale - normalization.mean[c]) / normalization.std[c];
    }
    for (size_t i = 0; i < area; ++i) input.values[c * area + i] = values[image.pixels[3 * i + c]];
  }
  return input;
}

Input Preprocess::operator()(Image image) const {
  for (const auto& step : steps) image = step(std::move(image));
  const std::string is = std::to_string(image.height) + " x " + std::to_string(image.width) + " pixels after preprocessing; the model ";
  if (std::min(image.width, image.height) < min_size) throw Error(is + "needs at least " + std::to_string(min_size));
  if (size[0] && (size[0] != image.height || size[1] != image.width)) {
    throw Error(is + "was exported for " + std::to_string(size[0]) + " x " + std::to_string(size[1]) + " alone");
  }
  return normalize(image, normalization);
}

}  // namespace nextvit
