// What inference.yml says of an exported model.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "dense.h"
#include "preprocess.h"

namespace nextvit {

enum class Task { classification, detection, segmentation };

const char* task_name(Task task);

struct Description {
  Task task = Task::classification;
  Preprocess preprocess;
  int batch = 0;                             // images per run, where the model takes no other number
  std::vector<std::string> labels;           // one per class
  int topk = 5;                              // classes to print
  bool softmax = true;                       // the model ends in Softmax
  std::string precision = "fp32";            // of the program, or what it is to run in (bf16)
  std::string exporter = "unknown";          // the Paddle version that wrote the program
  std::map<std::string, std::string> files;  // file name -> SHA-256

  // of detectors and segmentors, whose `preprocess`, `topk` and `softmax` say nothing
  DensePreprocess dense;
  float score_threshold = 0;         // of a detector: objects below are not told
  std::string input;                 // of a segmentor
  std::vector<std::string> outputs;  // in the program's order
};

// The inference.yml at `path`. Error, one line, for a file that is missing or no such description, for a transform, key or value that this
// program does not know, and for a list of labels that is not one per class.
Description read_description(const std::string& path);

// The model's files, of the names that the description lists with one of `endings`, as paths in `folder`, in the order of `endings`.
// Error if one is missing or does not have the hash that the description gives.
std::vector<std::string> model_files(const Description& description, const std::string& folder, const std::vector<std::string>& endings);

}  // namespace nextvit
