#include "threads.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace nextvit {
namespace {

const char* given() {
  const char* told = std::getenv("OMP_NUM_THREADS");
  return told && *told ? told : nullptr;
}

// A whole number above 0, which is all of `text`; else 0.
long long number(std::string_view text) {
  long long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value > 0 ? value : 0;
}

// Those that this process may use.
int cores() {
#ifdef __linux__
  cpu_set_t usable;
  if (!sched_getaffinity(0, sizeof usable, &usable)) return CPU_COUNT(&usable);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

// The whole cores of a quota and its period, each the next word of its file; `most` where there is no quota.
int limited(std::istream& quota, std::istream& period, int most) {
  std::string first, second;
  if (!(quota >> first) || !(period >> second) || !number(first) || !number(second)) return most;
  return static_cast<int>(std::min<long long>(most, number(first) / number(second)));
}

// `most`, or the fewer cores that the control groups (version 2, else 1) leave to this process.
int within_container(int most) {
  const std::filesystem::path groups = "/sys/fs/cgroup";
  std::ifstream own("/proc/self/cgroup");
  if (!own) return most;
  for (std::string line; std::getline(own, line);) {
    if (line.compare(0, 4, "0::/")) continue;
    for (std::filesystem::path folder = groups / line.substr(4);; folder = folder.parent_path()) {
      std::ifstream file(folder / "cpu.max");
      most = limited(file, file, most);
      if (folder == folder.parent_path()) return most;
    }
  }
  std::ifstream quota(groups / "cpu/cpu.cfs_quota_us"), period(groups / "cpu/cpu.cfs_period_us");
  return limited(quota, period, most);
}

}  // namespace

int usable_threads() {
  if (const char* told = given()) {
    const std::string_view text(told);
    std::string_view first = text.substr(0, text.find(','));
    while (!first.empty() && first.front() == ' ') first.remove_prefix(1);
    while (!first.empty() && first.back() == ' ') first.remove_suffix(1);
    return static_cast<int>(std::clamp<long long>(number(first), 1, 1 << 16));
  }
  return std::max(1, within_container(std::max(1, cores())));
}

std::string threads_text() {
  return "threads: " + std::to_string(usable_threads()) + " (" + (given() ? "OMP_NUM_THREADS" : "the cores that are there") + ")";
}

}  // namespace nextvit
