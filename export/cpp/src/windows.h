// From a frame to network inputs, and from the network's logits back to one label per pixel, as
// `pcaseg.runtime.windows` does it.
#pragma once

#include <string>
#include <vector>

#include "manifest.h"
#include "pcaseg.h"

namespace pcaseg {

enum class Strategy { single, sliding };

/// The name of a strategy. Throws Error(PCASEG_BAD_ARGUMENT) where there is none of that name.
Strategy strategy_of(const std::string& name);

/// Maps of float32 for each of some windows and classes, one behind the other.
struct Maps {
  Maps(int64_t windows, int64_t classes, int64_t height, int64_t width, float value = 0)
      : windows(windows), classes(classes), height(height), width(width),
        values(size_t(windows * classes * height * width), value) {}

  /// Takes values over; `shape` has four axes.
  Maps(const std::vector<int64_t>& shape, std::vector<float> values)
      : windows(shape[0]), classes(shape[1]), height(shape[2]), width(shape[3]), values(std::move(values)) {}

  size_t map_values() const { return size_t(height * width); }
  float* map(int64_t window, int64_t label) { return values.data() + (window * classes + label) * map_values(); }
  const float* map(int64_t window, int64_t label) const { return const_cast<Maps*>(this)->map(window, label); }

  int64_t windows, classes, height, width;
  std::vector<float> values;
};

/// Number of network inputs that a frame is cut into.
int64_t window_count(Strategy strategy, const Sliding& sliding);

/// Cuts a frame into the network's inputs: for `single` the whole frame, for `sliding` the windows row by row and then
/// the whole. Writes 3 x R x R values, RGB 0..255, for each.
void prepare_windows(const pcaseg_frame& frame, Strategy strategy, const Manifest& manifest, float* inputs);

/// Turns the logits of one frame's windows into one map of scores, 0..1, per class.
Maps merge_windows(Maps logits, Strategy strategy, const Sliding& sliding);

/// Resizes scores to the frame's size and takes the best class of every pixel, of equal ones the first.
void label_map(const Maps& scores, int height, int width, uint16_t* labels, float* confidence);

}  // namespace pcaseg
