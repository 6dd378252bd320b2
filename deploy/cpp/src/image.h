// Image files -> pixels, by libjpeg-turbo and libpng.
#pragma once

#include <string>
#include <vector>

#include "preprocess.h"

namespace nextvit {

// The JPEG or PNG file at `path` as RGB, with the pixels that Pillow decodes: EXIF orientation applied, grey and palette expanded, alpha
// dropped, CMYK converted without a profile, of 16 bits the high byte.
// Error, beginning with the path, for a file that is missing, empty, of another format, truncated, damaged or of more than MAX_PIXELS.
Image read_image(const std::string& path);

// The image as a PNG file. Error if it cannot be written.
void write_png(const std::string& path, const Image& image);

// A PNG file of grey whose values are `labels` [height, width]: of 8 bits, or of 16 where there are more than 256 `classes`.
void write_labels_png(const std::string& path, const std::vector<int>& labels, int width, int height, int classes);

}  // namespace nextvit
