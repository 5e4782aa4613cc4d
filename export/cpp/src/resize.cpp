#include "resize.h"

#include <algorithm>

namespace pcaseg {

std::vector<Tap> bilinear_taps(int64_t size_in, int64_t size_out) {
  std::vector<Tap> taps;
  const float scale = float(size_in) / float(size_out);
  for (int64_t i = 0; i < size_out; ++i) {
    const float source = size_in == size_out ? float(i) : std::max(scale * (float(i) + 0.5f) - 0.5f, 0.0f);
    const int64_t low = size_in == size_out ? i : std::min(int64_t(source), size_in - 1);
    const int64_t high = size_in == size_out ? i : std::min(low + 1, size_in - 1);
    taps.push_back({low, high, high > low ? std::clamp(source - float(low), 0.0f, 1.0f) : 0.0f});
  }
  return taps;
}

template <class Value>
void resize_plane(const Value* plane, Layout layout, const std::vector<Tap>& rows, const std::vector<Tap>& columns,
                  float* out) {
  const size_t width = columns.size();
  std::vector<float> low(width), high(width);  // the two rows of the plane that an output row blends, resized
  int64_t low_row = -1, high_row = -1;
  const auto resize_row = [&](int64_t row, std::vector<float>& resized) {
    const Value* values = plane + row * layout.row;
    for (size_t x = 0; x < width; ++x) {
      const Tap& tap = columns[x];
      resized[x] = tap.blend(values[tap.low * layout.column], values[tap.high * layout.column]);
    }
  };
  for (const Tap& tap : rows) {
    if (tap.low == high_row) {
      std::swap(low, high);
      std::swap(low_row, high_row);
    }
    if (tap.low != low_row) resize_row(low_row = tap.low, low);
    if (tap.high != high_row) resize_row(high_row = tap.high, high);
    for (size_t x = 0; x < width; ++x) out[x] = tap.blend(low[x], high[x]);
    out += width;
  }
}

template void resize_plane(const uint8_t*, Layout, const std::vector<Tap>&, const std::vector<Tap>&, float*);
template void resize_plane(const float*, Layout, const std::vector<Tap>&, const std::vector<Tap>&, float*);

}  // namespace pcaseg
