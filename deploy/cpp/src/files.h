// Files: their contents, hashes and lists.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nextvit {

// All bytes of a regular file: a pipe would wait for someone who writes, and a device may never end. Error, beginning with the path, if it
// cannot be read, is none, or has more than `limit` bytes.
std::string read_file(const std::string& path, uint64_t limit = UINT64_MAX);

// The SHA-256 of `data` in hexadecimal, as sha256sum prints it (FIPS 180-4).
std::string sha256(const std::string& data);

// The images that `sources` name: files; folders, with all folders below them; patterns such as photos/*.png; text files (.txt) with a path in
// each line, relative to the working directory or to the file; -, standard input with such lines. Sorted by folder and name, but those of lists
// as they name them. Error where there is nothing, or no image.
std::vector<std::string> list_images(const std::vector<std::string>& sources);

}  // namespace nextvit
