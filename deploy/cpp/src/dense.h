// Detectors and segmentors: from pixels to their inputs as in evaluation, and from their outputs to boxes, masks and labels. Nothing but the
// standard library.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "preprocess.h"

namespace nextvit {

using Size = std::array<int, 2>;  // height, width

// OpenCV's bilinear resizing of 8-bit pixels, byte for byte: fixed point of 11 bits, not antialiased.
Image resize_bilinear(const Image& image, int width, int height);

// One image as a detector or segmentor takes it.
struct DenseInput {
  Size size{0, 0}, shape{0, 0};      // of `values`; before padding
  std::array<float, 2> scale{1, 1};  // y, x: the factors of its resize
  std::vector<float> values;         // [3, height, width]
};

// One transform: Resize, Normalize or Pad.
struct DenseStep {
  enum class Kind { resize, normalize, pad } kind;
  Size sizes{0, 0};         // of Resize its scale as it is written, of Pad height and width
  bool keep_ratio = true;   // of Resize
  int divisor = 0;          // of Pad, in place of sizes
  Normalization colours{};  // of Normalize

  Size target(Size size) const;  // what an image of this size has after it
};

// The transforms of a detector or segmentor. Error, one line, for an image that cannot be used, before anything is computed.
struct DensePreprocess {
  std::vector<DenseStep> steps;
  int min_size = 1;
  Size sides{0, 0};    // the model's, where it takes no other
  bool fills = false;  // a smaller image is padded to `sides` with zeros; else it must have that size
  int classes = 0;     // of a segmentor, whose scores take memory
  double memory = 0;   // bytes that an image may take; 0: what is free

  void check(Size size) const;
  DenseInput operator()(const Image& image) const;
};

// An object's pixels: true within `part` [rows, columns], whose first pixel is at (top, left).
struct Mask {
  int top = 0, left = 0, rows = 0, columns = 0;
  std::vector<uint8_t> part;
};

// The pixels of `grid` [cells, cells], probabilities over `box` (x1, y1, x2, y2), in an image: bilinear, 0 outside, from `threshold` on.
Mask paste(const float* grid, int cells, const std::array<float, 4>& box, Size image, float threshold);

// COCO's compressed run lengths of the mask in an image, down its columns.
std::string run_lengths(const Mask& mask, Size image);

// The class of every pixel: `scores` [classes, cells] resized to `padded`, cut to `shape`, resized to `original`.
std::vector<int> best_class(const std::vector<float>& scores, int classes, Size cells, Size padded, Size shape, Size original);

// One class of a label map.
struct ClassArea {
  int id = 0;
  long pixels = 0;
  std::string counts;  // run lengths of its mask
};

// The classes in `labels` [image], largest first.
std::vector<ClassArea> class_areas(const std::vector<int>& labels, Size image, int classes);

// The colour of each of `count` classes, RGB.
std::vector<std::array<uint8_t, 3>> palette(int count);

}  // namespace nextvit
