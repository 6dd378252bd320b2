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

// {source} for a file, the image files of a directory (by ending, sorted). Error if there is none.
std::vector<std::string> list_images(const std::string& source);

}  // namespace nextvit
