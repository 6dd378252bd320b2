// The program for detectors and segmentors: images in; boxes, masks and labels out.
#pragma once

#include <string>
#include <vector>

#include "program.h"

namespace nextvit {

// Exit status: 0, or 1 if an image failed. Error, one line, for what cannot be run.
int run_dense(const Options& options, const Description& description, const std::vector<std::string>& paths, Engine& engine);

}  // namespace nextvit
