// What the standard library throws would end the process in Paddle; its own error becomes Python's.
#pragma once

#include <exception>

#include "paddle/extension.h"

template <class Task>
void guarded(const Task& task) {
  try {
    task();
  } catch (const std::exception& error) {
    PD_THROW("compiled operator: ", error.what());
  }
}
