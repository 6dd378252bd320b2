#include "dense.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <numeric>
#include <sstream>

namespace nextvit {
namespace {

constexpr int ONE = 2048;  // of OpenCV's weights
constexpr int TILE = 16;   // pixels of the sides of the parts of a label map that are worked on

// Where the pixels of a resized axis lie in the original one: `low`, and the weights of it and of the next.
struct FixedAxis {
  std::vector<int> low;
  std::vector<std::array<int, 2>> weights;
};

FixedAxis fixed_axis(int length, int size, bool clamped) {
  const double scale = 1.0 / (static_cast<double>(size) / length);
  FixedAxis axis{std::vector<int>(size), std::vector<std::array<int, 2>>(size)};
  for (int i = 0; i < size; ++i) {
    float place = static_cast<float>((i + 0.5) * scale - 0.5);
    int low = static_cast<int>(std::floor(place));
    place -= low;
    if (clamped && low < 0) place = 0, low = 0;
    if (clamped && low >= length - 1) place = 0, low = length - 1;
    axis.low[i] = low;
    axis.weights[i] = {static_cast<int>(std::nearbyint((1.0f - place) * ONE)), static_cast<int>(std::nearbyint(place * ONE))};
  }
  return axis;
}

bool is_half(int length, int size) {
  const double scale = 1.0 / (static_cast<double>(size) / length);
  return std::nearbyint(scale) == 2 && std::abs(scale - 2) < DBL_EPSILON;
}

std::string pixels_text(Size size) { return std::to_string(size[0]) + " x " + std::to_string(size[1]) + " pixels"; }

double free_memory() {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    long kilobytes = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %ld", &kilobytes) == 1) return 1024.0 * kilobytes;
  }
  return std::numeric_limits<double>::infinity();  // which cannot be known here
}

// What each of the pixels from `first` on takes of the `cells` that lie evenly from `low` to `high`: [n, cells].
struct Shares {
  int first = 0, count = 0;
  std::vector<float> values;
};

Shares shares(double low, double high, int size, int cells) {
  Shares result;
  if (!std::isfinite(low) || !std::isfinite(high)) return result;
  const double first = std::max(std::floor(low) - 1, 0.0), last = std::min(std::ceil(high) + 1, static_cast<double>(size));
  result.first = static_cast<int>(std::min(first, static_cast<double>(size)));
  if (high <= low || last <= first) return result;
  result.count = static_cast<int>(last - first);
  for (int i = 0; i < result.count; ++i) {
    const double place = (first + i + 0.5 - low) / (high - low) * cells - 0.5;
    for (int cell = 0; cell < cells; ++cell) result.values.push_back(static_cast<float>(std::max(1 - std::abs(place - cell), 0.0)));
  }
  return result;
}

// COCO's compressed form of the runs from each first to each second of `edges`, of `total` pixels.
std::string coco_counts(const std::vector<long>& edges, long total) {
  std::vector<long> counts;
  long before = 0;
  for (const long edge : edges) counts.push_back(edge - before), before = edge;
  if (before < total || counts.empty()) counts.push_back(total - before);
  std::string text;
  for (size_t i = 0; i < counts.size(); ++i) {
    long value = i > 2 ? counts[i] - counts[i - 2] : counts[i];
    for (bool more = true; more;) {
      const long digit = value & 31;
      value >>= 5;
      more = value != (digit & 16 ? -1 : 0);  // the top bit of the last digit is the sign
      text += static_cast<char>((more ? digit | 32 : digit) + 48);
    }
  }
  return text;
}

// The low of the two places of each of `size` pixels that `length` become, and the share of the other; in float, as Paddle computes them.
struct Bilinear {
  std::vector<int> low;
  std::vector<float> share;
};

Bilinear bilinear(int length, int size) {
  const float ratio = static_cast<float>(length) / static_cast<float>(size);
  Bilinear result{std::vector<int>(size), std::vector<float>(size)};
  for (int i = 0; i < size; ++i) {
    const float place = std::max(ratio * (i + 0.5f) - 0.5f, 0.0f);
    result.low[i] = std::min(static_cast<int>(place), length - 1);
    result.share[i] = place - result.low[i];
  }
  return result;
}

// One axis of the two resizes of a label map.
class Axis {
 public:
  Axis(int length, int padded, int kept, int original) {
    const Bilinear first = bilinear(length, padded), second = bilinear(kept, original);
    for (int i = 0; i < original; ++i) {
      const int low = second.low[i], high = std::min(low + 1, kept - 1);
      const float share = second.share[i];
      cells_.push_back({first.low[low], std::min(first.low[low] + 1, length - 1), first.low[high], std::min(first.low[high] + 1, length - 1)});
      weights_.push_back({(1 - share) * (1 - first.share[low]), (1 - share) * first.share[low], share * (1 - first.share[high]),
                          share * first.share[high]});
    }
  }

  // The cells that the pixels from `start` on, `count` of them, take.
  struct Part {
    int first = 0, cells = 0, count = 0;
    std::vector<float> matrix;  // [count, cells]
  };

  Part part(int start) const {
    Part result;
    result.count = std::min<int>(TILE, static_cast<int>(cells_.size()) - start);
    result.first = std::numeric_limits<int>::max();
    int last = 0;
    for (int i = start; i < start + result.count; ++i) {
      result.first = std::min(result.first, *std::min_element(cells_[i].begin(), cells_[i].end()));
      last = std::max(last, *std::max_element(cells_[i].begin(), cells_[i].end()));
    }
    result.cells = last + 1 - result.first;
    result.matrix.resize(static_cast<size_t>(result.count) * result.cells);
    for (int i = 0; i < result.count; ++i) {
      for (int k = 0; k < 4; ++k) result.matrix[i * result.cells + cells_[start + i][k] - result.first] += weights_[start + i][k];
    }
    return result;
  }

 private:
  std::vector<std::array<int, 4>> cells_;
  std::vector<std::array<float, 4>> weights_;
};

// The labels of one part of an image. What is interpolated lies between the scores around it, so only classes that reach the best of all least
// scores there can win; the others are left out.
class PartLabels {
 public:
  PartLabels(const std::vector<float>& scores, int classes, Size cells, float slack)
      : scores_(scores), classes_(classes), cells_(cells), slack_(slack) {}

  // The parts that follow have the rows `down`: each score of them is read here, once.
  void enter(const Axis::Part& down) {
    const size_t width = cells_[1];
    most_.assign(classes_ * width, -std::numeric_limits<float>::infinity());
    least_.assign(classes_ * width, std::numeric_limits<float>::infinity());
    for (int candidate = 0; candidate < classes_; ++candidate) {
      float* most = most_.data() + candidate * width;
      float* least = least_.data() + candidate * width;
      for (int y = 0; y < down.cells; ++y) {
        const float* values = scores_.data() + (static_cast<size_t>(candidate) * cells_[0] + down.first + y) * width;
        for (size_t x = 0; x < width; ++x) {
          most[x] = most[x] < values[x] ? values[x] : most[x];
          least[x] = values[x] < least[x] ? values[x] : least[x];
        }
      }
    }
  }

  // Writes the labels of the pixels of `down` and `across` to `labels`, a row of the image being `stride` long.
  void operator()(const Axis::Part& down, const Axis::Part& across, int* labels, int stride) {
    find_candidates(across);
    best_.assign(static_cast<size_t>(down.count) * across.count, -std::numeric_limits<float>::infinity());
    for (int y = 0; y < down.count; ++y) std::fill_n(labels + static_cast<size_t>(y) * stride, across.count, candidates_[0]);
    if (candidates_.size() == 1) return;
    for (const int candidate : candidates_) {
      interpolate(candidate, down, across);
      for (int y = 0; y < down.count; ++y) {
        for (int x = 0; x < across.count; ++x) {
          const size_t at = static_cast<size_t>(y) * across.count + x;
          if (found_[at] > best_[at]) best_[at] = found_[at], labels[static_cast<size_t>(y) * stride + x] = candidate;
        }
      }
    }
  }

 private:
  const float* row(int candidate, const Axis::Part& down, const Axis::Part& across, int y) const {
    return scores_.data() + (static_cast<size_t>(candidate) * cells_[0] + down.first + y) * cells_[1] + across.first;
  }

  void find_candidates(const Axis::Part& across) {
    reach_.resize(classes_);
    float bound = -std::numeric_limits<float>::infinity();
    for (int candidate = 0; candidate < classes_; ++candidate) {
      const size_t start = static_cast<size_t>(candidate) * cells_[1] + across.first;
      reach_[candidate] = *std::max_element(most_.begin() + start, most_.begin() + start + across.cells);
      const float least = *std::min_element(least_.begin() + start, least_.begin() + start + across.cells);
      if (least < std::numeric_limits<float>::infinity()) bound = std::max(bound, least);
    }
    candidates_.clear();
    for (int candidate = 0; candidate < classes_; ++candidate) {
      if (!(reach_[candidate] < bound - slack_)) candidates_.push_back(candidate);
    }
    if (candidates_.empty()) candidates_.push_back(0);
  }

  void interpolate(int candidate, const Axis::Part& down, const Axis::Part& across) {
    rows_.assign(static_cast<size_t>(down.cells) * across.count, 0);
    for (int y = 0; y < down.cells; ++y) {
      const float* values = row(candidate, down, across, y);
      for (int x = 0; x < across.count; ++x) {
        const float* weights = across.matrix.data() + static_cast<size_t>(x) * across.cells;
        rows_[static_cast<size_t>(y) * across.count + x] = std::inner_product(values, values + across.cells, weights, 0.0f);
      }
    }
    found_.assign(static_cast<size_t>(down.count) * across.count, 0);
    for (int y = 0; y < down.count; ++y) {
      for (int cell = 0; cell < down.cells; ++cell) {
        const float weight = down.matrix[static_cast<size_t>(y) * down.cells + cell];
        if (weight == 0) continue;
        for (int x = 0; x < across.count; ++x) {
          found_[static_cast<size_t>(y) * across.count + x] += weight * rows_[static_cast<size_t>(cell) * across.count + x];
        }
      }
    }
  }

  const std::vector<float>& scores_;
  const int classes_;
  const Size cells_;
  const float slack_;
  std::vector<int> candidates_;
  std::vector<float> most_, least_, reach_;  // of each class and column, of each class
  std::vector<float> rows_, found_, best_;
};

// Zeros at the right and below.
void pad(DenseInput& input, Size size) {
  if (size == input.size) return;
  std::vector<float> values(static_cast<size_t>(3) * size[0] * size[1]);
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < input.size[0]; ++y) {
      const float* from = input.values.data() + (static_cast<size_t>(c) * input.size[0] + y) * input.size[1];
      std::copy(from, from + input.size[1], values.data() + (static_cast<size_t>(c) * size[0] + y) * size[1]);
    }
  }
  input.size = size;
  input.values = std::move(values);
}

}  // namespace

Image resize_bilinear(const Image& image, int width, int height) {
  if (width == image.width && height == image.height) return image;
  Image result(width, height);
  if (is_half(image.width, width) && is_half(image.height, height)) {  // which OpenCV averages
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const uint8_t *above = image.at(2 * x, 2 * y), *below = image.at(2 * x, 2 * y + 1);
        for (int c = 0; c < 3; ++c) result.at(x, y)[c] = static_cast<uint8_t>((above[c] + above[c + 3] + below[c] + below[c + 3] + 2) >> 2);
      }
    }
    return result;
  }
  const FixedAxis across = fixed_axis(image.width, width, true), down = fixed_axis(image.height, height, false);
  auto resized_row = [&](int y) {
    std::vector<int> row(static_cast<size_t>(3) * width);
    for (int x = 0; x < width; ++x) {
      const uint8_t *low = image.at(across.low[x], y), *high = image.at(std::min(across.low[x] + 1, image.width - 1), y);
      for (int c = 0; c < 3; ++c) row[3 * x + c] = low[c] * across.weights[x][0] + high[c] * across.weights[x][1];
    }
    return row;
  };
  std::array<int, 2> held{-1, -1};
  std::array<std::vector<int>, 2> rows;
  for (int y = 0; y < height; ++y) {
    for (int k = 0; k < 2; ++k) {
      const int wanted = std::clamp(down.low[y] + k, 0, image.height - 1);
      if (k == 0 && held[1] == wanted) std::swap(rows[0], rows[1]), std::swap(held[0], held[1]);
      if (held[k] != wanted) rows[k] = resized_row(wanted), held[k] = wanted;
    }
    const auto [first, second] = down.weights[y];
    uint8_t* target = result.at(0, y);
    for (int i = 0; i < 3 * width; ++i) {
      target[i] = static_cast<uint8_t>((((first * (rows[0][i] >> 4)) >> 16) + ((second * (rows[1][i] >> 4)) >> 16) + 2) >> 2);
    }
  }
  return result;
}

Size DenseStep::target(Size size) const {
  if (kind == Kind::normalize) return size;
  if (kind == Kind::pad) {
    if (!divisor) return {std::max(size[0], sizes[0]), std::max(size[1], sizes[1])};
    return {(size[0] + divisor - 1) / divisor * divisor, (size[1] + divisor - 1) / divisor * divisor};
  }
  if (!keep_ratio) return {sizes[1], sizes[0]};
  const double longer = std::max(sizes[0], sizes[1]), shorter = std::min(sizes[0], sizes[1]);
  const double factor = std::min(longer / std::max(size[0], size[1]), shorter / std::min(size[0], size[1]));
  return {std::max(1, static_cast<int>(size[0] * factor + 0.5)), std::max(1, static_cast<int>(size[1] * factor + 0.5))};
}

void DensePreprocess::check(Size size) const {
  const double original = static_cast<double>(size[0]) * size[1];
  for (const DenseStep& step : steps) {
    size = step.target(size);
    if (static_cast<double>(size[0]) * size[1] > MAX_PIXELS)
      throw Error(pixels_text(size) + " after a transform are more than the limit of " + std::to_string(MAX_PIXELS));
  }
  const std::string is = pixels_text(size) + " when transformed";
  if (std::min(size[0], size[1]) < min_size) throw Error(is + "; the model needs " + std::to_string(min_size) + " or more");
  if (sides[0] && !fills && size != sides)
    throw Error(is + "; the exported program takes " + std::to_string(sides[0]) + " x " + std::to_string(sides[1]));
  if (sides[0] && fills && (size[0] > sides[0] || size[1] > sides[1]))
    throw Error(is + ", more than the " + std::to_string(sides[0]) + " x " + std::to_string(sides[1]) + " of the exported program");
  // the input, the scores at a quarter of each side, the labels
  const double needed = static_cast<double>(size[0]) * size[1] * (12 + classes / 4) + (classes ? 8 * original : 0);
  const double free = memory > 0 ? memory : free_memory();
  if (needed > free) {
    char text[96];
    std::snprintf(text, sizeof text, " take %.1f GB or more, and %.1f GB may be used; give a smaller image", needed / 1e9, free / 1e9);
    throw Error(is + text);
  }
}

DenseInput DensePreprocess::operator()(const Image& image) const {
  check({image.height, image.width});
  Image pixels = image;
  DenseInput input;
  bool in_floats = false;
  auto to_floats = [&](const Normalization& colours) {
    Input made = normalize(pixels, colours);
    input.size = {made.height, made.width};
    input.values = std::move(made.values);
    in_floats = true;
  };
  std::array<double, 2> scale{1, 1};
  for (const DenseStep& step : steps) {
    if (step.kind == DenseStep::Kind::resize) {
      const auto [height, width] = step.target({pixels.height, pixels.width});
      scale = {scale[0] * (static_cast<double>(height) / pixels.height), scale[1] * (static_cast<double>(width) / pixels.width)};
      pixels = resize_bilinear(pixels, width, height);
    } else if (step.kind == DenseStep::Kind::normalize) {
      if (in_floats) {  // after Pad
        const size_t area = input.values.size() / 3;
        for (size_t i = 0; i < input.values.size(); ++i)
          input.values[i] = (input.values[i] - step.colours.mean[i / area]) / step.colours.std[i / area];
      } else {
        to_floats(step.colours);
      }
    } else {
      if (!in_floats) to_floats({});
      input.shape = input.size;
      pad(input, step.target(input.size));
    }
  }
  if (!in_floats) to_floats({});
  if (!input.shape[0]) input.shape = input.size;
  if (fills && sides[0]) pad(input, sides);
  input.scale = {static_cast<float>(scale[0]), static_cast<float>(scale[1])};
  return input;
}

Mask paste(const float* grid, int cells, const std::array<float, 4>& box, Size image, float threshold) {
  const Shares rows = shares(box[1], box[3], image[0], cells), columns = shares(box[0], box[2], image[1], cells);
  Mask mask{rows.first, columns.first, rows.count, columns.count, std::vector<uint8_t>(static_cast<size_t>(rows.count) * columns.count)};
  std::vector<float> line(cells);
  for (int y = 0; y < rows.count; ++y) {
    std::fill(line.begin(), line.end(), 0.0f);
    for (int i = 0; i < cells; ++i) {
      const float share = rows.values[static_cast<size_t>(y) * cells + i];
      if (share == 0) continue;
      for (int j = 0; j < cells; ++j) line[j] += share * grid[i * cells + j];
    }
    for (int x = 0; x < columns.count; ++x) {
      const float* shares_of = columns.values.data() + static_cast<size_t>(x) * cells;
      mask.part[static_cast<size_t>(y) * columns.count + x] = std::inner_product(line.begin(), line.end(), shares_of, 0.0f) >= threshold;
    }
  }
  return mask;
}

std::string run_lengths(const Mask& mask, Size image) {
  std::vector<long> edges;
  for (int x = 0; x < mask.columns; ++x) {
    for (int y = 0; y < mask.rows; ++y) {
      if (!mask.part[static_cast<size_t>(y) * mask.columns + x]) continue;
      const long at = static_cast<long>(mask.left + x) * image[0] + mask.top + y;
      if (!edges.empty() && edges.back() == at) {
        edges.back() = at + 1;
      } else {
        edges.push_back(at), edges.push_back(at + 1);
      }
    }
  }
  return coco_counts(edges, static_cast<long>(image[0]) * image[1]);
}

std::vector<int> best_class(const std::vector<float>& scores, int classes, Size cells, Size padded, Size shape, Size original) {
  float largest = 1e-30f;
  for (const float score : scores) largest = std::max(largest, std::abs(score));
  const Axis rows(cells[0], padded[0], shape[0], original[0]), columns(cells[1], padded[1], shape[1], original[1]);
  std::vector<int> labels(static_cast<size_t>(original[0]) * original[1]);
  PartLabels part(scores, classes, cells, 1e-5f * largest);  // for rounding
  std::vector<Axis::Part> acrosses;
  for (int left = 0; left < original[1]; left += TILE) acrosses.push_back(columns.part(left));
  for (int top = 0; top < original[0]; top += TILE) {
    const Axis::Part down = rows.part(top);
    part.enter(down);
    int* labels_of_part = labels.data() + static_cast<size_t>(top) * original[1];
    for (const Axis::Part& across : acrosses) {
      part(down, across, labels_of_part, original[1]);
      labels_of_part += TILE;
    }
  }
  return labels;
}

std::vector<ClassArea> class_areas(const std::vector<int>& labels, Size image, int classes) {
  std::vector<long> counts(classes);
  for (const int label : labels) ++counts[label];
  std::vector<std::vector<long>> edges(classes);
  int before = -1;
  long at = 0;
  for (int x = 0; x < image[1]; ++x) {
    for (int y = 0; y < image[0]; ++y, ++at) {
      const int label = labels[static_cast<size_t>(y) * image[1] + x];
      if (label == before) continue;
      if (before >= 0) edges[before].push_back(at);
      edges[label].push_back(at);
      before = label;
    }
  }
  if (before >= 0) edges[before].push_back(at);
  std::vector<int> order(classes);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return counts[a] > counts[b]; });
  std::vector<ClassArea> areas;
  for (const int id : order) {
    if (counts[id]) areas.push_back({id, counts[id], coco_counts(edges[id], at)});
  }
  return areas;
}

std::vector<std::array<uint8_t, 3>> palette(int count) {
  constexpr double GOLDEN_ANGLE = 0.381966;  // of a turn: hues of neighbouring classes lie far apart
  constexpr std::array<double, 3> LIGHTNESS{0.5, 0.35, 0.68};
  std::vector<std::array<uint8_t, 3>> colours;
  for (int i = 0; i < count; ++i) {
    const double hue = std::fmod(i * GOLDEN_ANGLE, 1.0), light = LIGHTNESS[i / 7 % 3], saturation = i / 21 % 2 ? 0.6 : 0.9;
    const double high = light <= 0.5 ? light * (1 + saturation) : light + saturation - light * saturation, low = 2 * light - high;
    auto channel = [&](double turn) {
      turn -= std::floor(turn);
      if (turn < 1 / 6.0) return low + (high - low) * turn * 6;
      if (turn < 0.5) return high;
      return turn < 2 / 3.0 ? low + (high - low) * (2 / 3.0 - turn) * 6 : low;
    };
    auto byte = [](double value) { return static_cast<uint8_t>(std::nearbyint(255 * value)); };
    colours.push_back({byte(channel(hue + 1 / 3.0)), byte(channel(hue)), byte(channel(hue - 1 / 3.0))});
  }
  return colours;
}

}  // namespace nextvit
