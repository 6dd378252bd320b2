// preprocess MODEL/inference.yml IMAGE: the model's input, float32 [3, H, W] as stored in memory, on stdout; "H W" on stderr.
#include <cstdio>
#include <iostream>

#include "description.h"
#include "image.h"
#include "program.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: " << argv[0] << " MODEL/inference.yml IMAGE > input.f32" << std::endl;
    return 2;
  }
  try {
    const nextvit::Input input = nextvit::read_description(argv[1]).preprocess(nextvit::read_image(argv[2]));
    std::cerr << input.height << ' ' << input.width << std::endl;
    const size_t written = std::fwrite(input.values.data(), sizeof(float), input.values.size(), stdout);
    return written == input.values.size() && std::fflush(stdout) == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "error: " << nextvit::shown(error.what()) << std::endl;
    return 1;
  }
}
