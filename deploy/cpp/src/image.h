// Image files -> pixels, by libjpeg-turbo and libpng.
#pragma once

#include <string>

#include "preprocess.h"

namespace nextvit {

// The JPEG or PNG file at `path` as RGB, with the pixels that Pillow decodes: EXIF orientation applied, grey and palette expanded, alpha
// dropped, CMYK converted without a profile, of 16 bits the high byte.
// Error, beginning with the path, for a file that is missing, empty, of another format, truncated, damaged or of more than MAX_PIXELS.
Image read_image(const std::string& path);

}  // namespace nextvit
