#include "image.h"

#include <jerror.h>
#include <jpeglib.h>  // needs <cstdio>, which <string> brings
#include <memory>
#include <png.h>

#include <algorithm>
#include <cctype>
#include <csetjmp>
#include <cstring>
#include <new>
#include <optional>
#include <string_view>

#include "files.h"

namespace nextvit {
namespace {

using Bytes = std::string;

constexpr uint64_t MAX_BYTES = 1 << 30;  // of an image file

// EXIF and XMP: how the picture must be turned. 1 is upright, 2 to 8 as in the EXIF standard.

// The value of tag 0x0112 in the first directory of EXIF's own bytes, the last if it is there more than once; none if it cannot be read.
// Every note may be damaged: nothing is read that is not there, and a type that is no whole number does not count.
std::optional<uint32_t> exif_orientation(std::string_view data) {
  constexpr std::string_view head("Exif\0\0", 6);
  for (int i = 0; i < 2 && data.substr(0, head.size()) == head; ++i) data.remove_prefix(head.size());
  const bool little = data.substr(0, 4) == std::string_view("II*\0", 4);
  if (data.size() < 8 || (!little && data.substr(0, 4) != std::string_view("MM\0*", 4))) return {};
  auto number = [&](size_t offset, size_t length) {
    uint32_t value = 0;
    for (size_t i = 0; i < length; ++i) value = value << 8 | static_cast<uint8_t>(data[offset + (little ? length - 1 - i : i)]);
    return value;
  };
  const uint64_t directory = number(4, 4);
  if (directory + 2 > data.size()) return {};
  const uint64_t end = directory + 2 + 12 * static_cast<uint64_t>(number(directory, 2));
  std::optional<uint32_t> found;
  for (uint64_t entry = directory + 2; entry < end && entry + 12 <= data.size(); entry += 12) {
    if (number(entry, 2) != 0x0112 || number(entry + 4, 4) != 1) continue;
    switch (number(entry + 2, 2)) {
      case 1:  // one byte; 6 to 9 are the signed types, whose values below 0 are none that turns an image
      case 6:
        found = number(entry + 8, 1);
        break;
      case 3:
      case 8:
        found = number(entry + 8, 2);
        break;
      case 4:
      case 9:
        found = number(entry + 8, 4);
    }
  }
  return found;
}

int xmp_orientation(std::string_view text) {
  constexpr std::string_view name = "tiff:Orientation";
  for (size_t at = text.find(name); at != std::string_view::npos; at = text.find(name, at + 1)) {
    std::string_view rest = text.substr(at + name.size());
    rest.remove_prefix(rest.substr(0, 2) == "=\"" ? 2 : rest.substr(0, 1) == ">" ? 1 : rest.size());
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return 0;
}

struct Metadata {
  Bytes exif, xmp;

  int orientation() const {
    const std::optional<uint32_t> found = exif_orientation(exif);
    if (!found) return xmp_orientation(xmp);
    return *found <= 8 ? static_cast<int>(*found) : 1;
  }
};

Image upright(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool turned = orientation >= 5, from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image result(turned ? image.height : image.width, turned ? image.width : image.height);
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x) {
      const int column = turned ? y : x, row = turned ? x : y;
      std::copy_n(image.at(from_right ? image.width - 1 - column : column, from_below ? image.height - 1 - row : row), 3, result.at(x, y));
    }
  }
  return result;
}

// The two libraries report errors by longjmp. No object that has a destructor lives between setjmp and a call of theirs.

struct JpegErrors {
  jpeg_error_mgr manager;
  jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void jpeg_failed(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->message);
  longjmp(errors->jump, 1);
}

void jpeg_warned(j_common_ptr info, int level) {
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) jpeg_failed(info);  // libjpeg would paint the rest grey
}

uint8_t multiply(int a, int b) {  // a * b / 255, rounded as Pillow does
  const int product = a * b + 128;
  return static_cast<uint8_t>(((product >> 8) + product) >> 8);
}

void cmyk_to_rgb(const uint8_t* source, int width, uint8_t* target) {  // as stored, inverted: 255 is no ink
  for (; width > 0; --width, source += 4, target += 3) {
    for (int c = 0; c < 3; ++c) target[c] = std::max(0, source[3] - multiply(255 - source[c], source[3]));
  }
}

// Decodes into `image` and `metadata`; `row` is working space. False, with errors.message set, if the file is damaged.
bool decode_jpeg(const Bytes& data, Image& image, Metadata& metadata, std::vector<uint8_t>& row, JpegErrors& errors) {
  jpeg_decompress_struct info;
  info.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = jpeg_failed;
  errors.manager.emit_message = jpeg_warned;
  jpeg_create_decompress(&info);
  if (setjmp(errors.jump)) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(data.data()), data.size());
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&info, TRUE);
  if (static_cast<long long>(info.image_width) * info.image_height > MAX_PIXELS) {
    std::snprintf(errors.message, sizeof errors.message, "%u x %u pixels are more than the limit of %ld", info.image_width,
                  info.image_height, MAX_PIXELS);
    jpeg_destroy_decompress(&info);
    return false;
  }
  const bool cmyk = info.num_components == 4;
  info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  image = Image(info.output_width, info.output_height);
  row.resize(static_cast<size_t>(info.output_width) * 4);
  while (info.output_scanline < info.output_height) {
    uint8_t* const target = image.at(0, info.output_scanline);
    JSAMPROW rows[] = {cmyk ? row.data() : target};
    jpeg_read_scanlines(&info, rows, 1);
    if (cmyk) cmyk_to_rgb(row.data(), info.output_width, target);
  }
  for (auto* marker = info.marker_list; marker; marker = marker->next) {
    constexpr char exif[] = "Exif\0", xmp[] = "http://ns.adobe.com/xap/1.0/";
    const char* text = reinterpret_cast<const char*>(marker->data);
    if (marker->data_length >= sizeof exif && !std::memcmp(text, exif, sizeof exif)) {
      metadata.exif.append(text + sizeof exif, marker->data_length - sizeof exif);
    } else if (marker->data_length >= sizeof xmp && !std::memcmp(text, xmp, sizeof xmp)) {
      metadata.xmp.assign(text + sizeof xmp, marker->data_length - sizeof xmp);
    }
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

struct PngReader {
  const Bytes& data;
  size_t position = 0;
  char message[200] = "";
};

[[noreturn]] void png_failed(png_structp png, png_const_charp message) {
  auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
  std::snprintf(reader->message, sizeof reader->message, "%s", message);
  png_longjmp(png, 1);
}

void png_ignore(png_structp, png_const_charp) {}

void png_read(png_structp png, png_bytep target, size_t length) {
  auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
  if (length > reader->data.size() - reader->position) png_error(png, "the file is truncated");
  std::memcpy(target, reader->data.data() + reader->position, length);
  reader->position += length;
}

int digit_of(char character) {
  constexpr std::string_view digits = "0123456789abcdef";
  const size_t found = digits.find(static_cast<char>(std::tolower(static_cast<unsigned char>(character))));
  return found == std::string_view::npos ? -1 : static_cast<int>(found);
}

// EXIF as ImageMagick stored it before PNG had a chunk for it: three lines, then bytes of two hexadecimal digits. Empty if it is damaged.
Bytes hexadecimal(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  Bytes bytes;
  int high = -1;
  for (const char character : text) {
    if (character == '\n' || (high < 0 && std::strchr(" \t\r\v\f", character) && character)) continue;
    const int digit = digit_of(character);
    if (digit < 0) return {};
    if (high >= 0) bytes.push_back(static_cast<char>(high << 4 | digit));
    high = high < 0 ? digit : -1;
  }
  return high < 0 ? bytes : Bytes();
}

// Decodes into `image` and `metadata`; `rows` is working space. False, with reader.message set, if the file is damaged.
bool decode_png(PngReader& reader, Image& image, Metadata& metadata, std::vector<png_bytep>& rows) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, png_failed, png_ignore);
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  if (!info) throw std::bad_alloc();
  if (setjmp(png_jmpbuf(png))) {
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  png_set_read_fn(png, &reader, png_read);
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_QUIET_USE);  // a bad note does not cost the image
  png_read_info(png, info);
  const png_uint_32 width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  if (static_cast<long long>(width) * height > MAX_PIXELS) {
    std::snprintf(reader.message, sizeof reader.message, "%u x %u pixels are more than the limit of %ld", width, height, MAX_PIXELS);
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  png_set_strip_16(png);
  if (png_get_color_type(png, info) == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
  png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  image = Image(static_cast<int>(width), static_cast<int>(height));
  if (png_get_rowbytes(png, info) != static_cast<size_t>(width) * 3) png_error(png, "unexpected size of a row");
  for (png_uint_32 y = 0; y < height; ++y) rows.push_back(image.at(0, static_cast<int>(y)));
  png_read_image(png, rows.data());
  png_read_end(png, info);
  png_bytep exif = nullptr;
  png_uint_32 length = 0;
  if (png_get_eXIf_1(png, info, &length, &exif)) metadata.exif.assign(reinterpret_cast<char*>(exif), length);
  png_textp texts = nullptr;
  const int count = png_get_text(png, info, &texts, nullptr);
  for (int i = 0; i < count; ++i) {
    const size_t size = texts[i].compression > 0 ? texts[i].itxt_length : texts[i].text_length;
    if (!std::strcmp(texts[i].key, "XML:com.adobe.xmp")) metadata.xmp.assign(texts[i].text, size);
    if (!exif && !std::strcmp(texts[i].key, "Raw profile type exif")) metadata.exif = hexadecimal({texts[i].text, size});
  }
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

}  // namespace

Image read_image(const std::string& path) {
  const Bytes data = read_file(path, MAX_BYTES);
  if (data.empty()) throw Error(path + ": the file is empty (0 bytes)");
  Image image;
  Metadata metadata;
  if (data.compare(0, 3, "\xFF\xD8\xFF") == 0) {
    JpegErrors errors{};
    std::vector<uint8_t> row;
    if (!decode_jpeg(data, image, metadata, row, errors)) throw Error(path + ": JPEG: " + errors.message);
  } else if (data.compare(0, 8, "\x89PNG\r\n\x1a\n") == 0) {
    PngReader reader{data};
    std::vector<png_bytep> rows;
    if (!decode_png(reader, image, metadata, rows)) throw Error(path + ": PNG: " + reader.message);
  } else {
    throw Error(path + ": neither JPEG nor PNG, which are what this program reads; convert it");
  }
  return upright(std::move(image), metadata.orientation());
}

namespace {

// rows: of the file's bytes, as libpng takes them.
void write_rows(const std::string& path, int width, int height, int bits, int colours, const std::vector<uint8_t>& data, size_t row_bytes) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  png_structp png = file ? png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, png_ignore) : nullptr;
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  if (!info || setjmp(png_jmpbuf(png))) {
    if (png) png_destroy_write_struct(&png, &info);
    throw Error(path + ": cannot be written");
  }
  png_init_io(png, file.get());
  png_set_IHDR(png, info, width, height, bits, colours, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  for (int y = 0; y < height; ++y) png_write_row(png, const_cast<png_bytep>(data.data() + y * row_bytes));
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
}

}  // namespace

void write_png(const std::string& path, const Image& image) {
  write_rows(path, image.width, image.height, 8, PNG_COLOR_TYPE_RGB, image.pixels, static_cast<size_t>(3) * image.width);
}

void write_labels_png(const std::string& path, const std::vector<int>& labels, int width, int height, int classes) {
  const bool wide = classes > 256;
  std::vector<uint8_t> data;
  data.reserve(labels.size() * (wide ? 2 : 1));
  for (const int label : labels) {
    if (wide) data.push_back(static_cast<uint8_t>(label >> 8));
    data.push_back(static_cast<uint8_t>(label));
  }
  write_rows(path, width, height, wide ? 16 : 8, PNG_COLOR_TYPE_GRAY, data, static_cast<size_t>(width) * (wide ? 2 : 1));
}

}  // namespace nextvit
