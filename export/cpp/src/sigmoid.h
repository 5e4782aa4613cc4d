#pragma once

#include <cstddef>

namespace pcaseg {

/// Replaces values by `1 / (1 + exp(-x))`, with the very rounding of the Python runtime.
void sigmoid(float* values, size_t count);

}  // namespace pcaseg
