// Bilinear resizing as the model was trained with it: half-pixel centres, no antialiasing, all in float32.
//
// Every sum is rounded where the Python runtime rounds it, so the numbers are the same; the library is therefore
// compiled without fused multiply-adds (-ffp-contract=off).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pcaseg {

/// The two inputs that an output position blends: `(1 - weight) * x[low] + weight * x[high]`.
struct Tap {
  int64_t low, high;
  float weight;

  float blend(float low_value, float high_value) const { return low_value * (1 - weight) + high_value * weight; }
};

/// The taps of one axis: source position `in / out * (i + 0.5) - 0.5`, at least 0.
std::vector<Tap> bilinear_taps(int64_t size_in, int64_t size_out);

/// Where the values of a plane lie: the distance between rows and between columns, in values.
struct Layout {
  int64_t row, column;
};

/// Resizes a plane of bytes or float32 to `rows.size()` x `columns.size()` values of `out`, columns first, then rows.
template <class Value>
void resize_plane(const Value* plane, Layout layout, const std::vector<Tap>& rows, const std::vector<Tap>& columns,
                  float* out);

}  // namespace pcaseg
