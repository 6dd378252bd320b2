// Files: their contents, hashes and lists.
#pragma once

#include <string>
#include <vector>

namespace nextvit {

// All bytes of a file. Error, beginning with the path, if it cannot be read.
std::string read_file(const std::string& path);

// The SHA-256 of `data` in hexadecimal, as sha256sum prints it (FIPS 180-4).
std::string sha256(const std::string& data);

// {source} for a file, the image files of a directory (by ending, sorted). Error if there is none.
std::vector<std::string> list_images(const std::string& source);

}  // namespace nextvit
