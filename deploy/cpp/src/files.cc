#include "files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>
#include <sstream>
#include <system_error>
#if __has_include(<glob.h>)
#include <glob.h>
#endif

#include "preprocess.h"

namespace nextvit {
namespace {

constexpr std::array<uint32_t, 64> ROUND_CONSTANTS = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t rotate(uint32_t x, int bits) { return x >> bits | x << (32 - bits); }

void add_block(const uint8_t* block, std::array<uint32_t, 8>& state) {
  std::array<uint32_t, 64> w;
  for (int i = 0; i < 16; ++i) w[i] = uint32_t{block[4 * i]} << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; ++i) {
    const uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
    const uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (int i = 0; i < 64; ++i) {
    const uint32_t t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + ROUND_CONSTANTS[i] + w[i];
    const uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const std::array<uint32_t, 8> added = {a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; ++i) state[i] += added[i];
}

}  // namespace

std::string read_file(const std::string& path, uint64_t limit) {
  std::error_code failed;
  const std::filesystem::file_status status = std::filesystem::status(path, failed);
  if (std::filesystem::is_other(status)) throw Error(path + ": not a regular file");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  std::string data;
  std::array<char, 1 << 16> block;
  while (file) {
    const size_t count = std::fread(block.data(), 1, block.size(), file.get());
    if (count == 0) break;
    data.append(block.data(), count);
    if (data.size() > limit) throw Error(path + ": more bytes than the limit of " + std::to_string(limit));
  }
  if (!file || std::ferror(file.get())) throw Error(path + ": cannot be read: " + std::generic_category().message(errno));
  return data;
}

std::string sha256(const std::string& data) {
  std::array<uint32_t, 8> state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const size_t whole = data.size() / 64 * 64;
  for (size_t i = 0; i < whole; i += 64) add_block(reinterpret_cast<const uint8_t*>(data.data()) + i, state);
  std::string end = data.substr(whole) + '\x80';  // a one bit, zeros, the length in bits
  end.resize(end.size() <= 56 ? 56 : 120);
  for (int shift = 56; shift >= 0; shift -= 8) end.push_back(static_cast<char>(static_cast<uint64_t>(data.size()) * 8 >> shift));
  for (size_t i = 0; i < end.size(); i += 64) add_block(reinterpret_cast<const uint8_t*>(end.data()) + i, state);
  std::string text(64, '0');
  for (int i = 0; i < 64; ++i) text[i] = "0123456789abcdef"[state[i / 8] >> (28 - i % 8 * 4) & 15];
  return text;
}

namespace {

namespace fs = std::filesystem;

bool is_image_name(const fs::path& path) {
  static const std::vector<std::string> endings = {".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
                                                   ".mpo",  ".pbm",  ".pgm", ".png", ".pnm", ".ppm",  ".tif", ".tiff", ".webp"};
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::find(endings.begin(), endings.end(), ending) != endings.end() && path.filename().string()[0] != '.';
}

// The images in `folder`, then those in the folders in it. seen: folders that were read.
void add_below(const fs::path& folder, std::set<std::string>& seen, std::vector<std::string>& found) {
  std::error_code error;
  if (!seen.insert(fs::canonical(folder, error).string()).second) return;
  std::vector<fs::path> files, folders;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::error_code unknown;
    if (entry.is_directory(unknown)) {
      folders.push_back(entry.path());
    } else if (is_image_name(entry.path())) {
      files.push_back(entry.path());
    }
  }
  if (error) throw Error(folder.string() + ": cannot be listed: " + error.message());
  std::sort(files.begin(), files.end());
  std::sort(folders.begin(), folders.end());
  for (const fs::path& file : files) found.push_back(file.string());
  for (const fs::path& below : folders) add_below(below, seen, found);
}

std::vector<std::string> listed(std::istream& lines, const std::string& where, const fs::path& folder) {
  std::vector<std::string> found;
  std::string line;
  while (std::getline(lines, line)) {
    const size_t first = line.find_first_not_of(" \t\r"), last = line.find_last_not_of(" \t\r");
    if (first == std::string::npos) continue;
    line = line.substr(first, last + 1 - first);
    std::error_code error;
    found.push_back(fs::exists(line, error) ? line : (folder / line).string());
  }
  if (found.empty()) throw Error(where + ": the list is empty; expected the path of an image in each line");
  return found;
}

std::vector<std::string> matching([[maybe_unused]] const std::string& pattern) {
  std::vector<std::string> found;
#if __has_include(<glob.h>)
  glob_t matches{};
  if (glob(pattern.c_str(), 0, nullptr, &matches) == 0) found.assign(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
  globfree(&matches);
#endif
  found.erase(std::remove_if(found.begin(), found.end(), [](const std::string& path) { return !is_image_name(path); }), found.end());
  return found;
}

std::vector<std::string> images_of(const std::string& source) {
  if (source == "-") return listed(std::cin, "standard input", {});
  std::error_code error;
  if (fs::is_directory(source, error)) {
    std::vector<std::string> found;
    std::set<std::string> seen;
    for (fs::path above = fs::canonical(source, error).parent_path(); above != above.root_path(); above = above.parent_path())
      seen.insert(above.string());
    add_below(source, seen, found);
    if (found.empty()) throw Error(source + ": no images in this directory; expected files ending in .jpg, .jpeg or .png");
    return found;
  }
  if (fs::exists(source, error)) {
    if (fs::path(source).extension() != ".txt") return {source};
    std::istringstream lines(read_file(source, 1ull << 30));
    return listed(lines, source, fs::path(source).parent_path());
  }
  const std::vector<std::string> found = source.find_first_of("*?[") == std::string::npos ? std::vector<std::string>{} : matching(source);
  if (found.empty()) throw Error(source + ": no such file or directory");
  return found;
}

}  // namespace

std::vector<std::string> list_images(const std::vector<std::string>& sources) {
  std::vector<std::string> found;
  for (const std::string& source : sources) {
    const std::vector<std::string> more = images_of(source);
    found.insert(found.end(), more.begin(), more.end());
  }
  return found;
}

}  // namespace nextvit
