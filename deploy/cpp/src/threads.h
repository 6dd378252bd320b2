// With how many threads a program computes on a CPU: the rule of the programs in Python (deploy/python/startup.py).
#pragma once

#include <string>

namespace nextvit {

// What OMP_NUM_THREADS says, else the cores that this process may use: its affinity, and the whole cores that its container leaves it.
int usable_threads();

// The same, and where it comes from, as programs say it.
std::string threads_text();

}  // namespace nextvit
