// From decoded pixels to the model's input: the pixels of evaluation, bit for bit. Nothing but the standard library.
//
// Resizing is Pillow's: a separable filter, widened when it shrinks, in 8-bit fixed point, rounded after each of its two passes.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace nextvit {

constexpr long MAX_PIXELS = 89'478'485;  // 256 MiB of RGB: a larger image is a decompression bomb or a mistake

// What the user can put right. One line.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Rows from the top, three bytes a pixel. `pixels` holds height * width * 3 of them.
struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;

  Image() = default;
  Image(int width, int height);  // black; Error for more than MAX_PIXELS
  uint8_t* at(int x, int y) { return pixels.data() + (static_cast<size_t>(y) * width + x) * 3; }
  const uint8_t* at(int x, int y) const { return pixels.data() + (static_cast<size_t>(y) * width + x) * 3; }
};

using PillowVersion = std::array<int, 2>;

// `image` at `width` x `height`. filter: nearest, box, bilinear, hamming, bicubic or lanczos, as in Pillow.
// pillow: whose pixels these shall be. Versions from 12.2 shrink some tall images vertically first, which shifts single pixels by 1.
Image resize(const Image& image, int width, int height, const std::string& filter, PillowVersion pillow = {13, 0});

// The same by OpenCV, not antialiased: nearest, bilinear, area, bicubic or lanczos. Error where this program was built without it.
Image resize_opencv(const Image& image, int width, int height, const std::string& filter);

// Error unless one of the two functions above knows `filter`. backend: pil or cv2.
void check_filter(const std::string& filter, const std::string& backend);

// `image` with its shorter side at `side`, the other in proportion, cut to a whole pixel: the {width, height} to resize it to.
std::array<int, 2> short_side_size(const Image& image, int side);

// The centre. An odd remainder is halved with rounding to even; black is added where the image is smaller.
Image center_crop(const Image& image, int width, int height);

// The image with red and blue exchanged.
Image swap_red_and_blue(Image image);

// (pixel * scale - mean) / std per channel, each step rounded to float. The default changes nothing.
struct Normalization {
  float scale = 1;
  std::array<float, 3> mean{0, 0, 0}, std{1, 1, 1};
};

// One image as the model takes it: [3, height, width].
struct Input {
  int height = 0, width = 0;
  std::vector<float> values;
};

Input normalize(const Image& image, const Normalization& normalization);

// The transforms of an inference.yml in their order. Error if the result is smaller than min_size, or not `size`.
struct Preprocess {
  std::vector<std::function<Image(Image)>> steps;
  Normalization normalization;
  int min_size = 1;
  std::array<int, 2> size{0, 0};  // height and width, where the model takes no other

  Input operator()(Image image) const;
};

}  // namespace nextvit
