#include "parts.h"

#include <algorithm>
#include <set>

namespace pcaseg {
namespace {

constexpr float least_score = 0.5f;  // from which a part takes a pixel of its object

/// Maps of the parts of one object, and in front, so that it wins a tie, one that says that no part is there.
Maps maps_of(const Maps& scores, const std::vector<int64_t>& parts) {
  Maps maps(1, int64_t(parts.size()) + 1, scores.height, scores.width, least_score);
  for (size_t i = 0; i < parts.size(); ++i)
    std::copy_n(scores.map(0, parts[i]), scores.map_values(), maps.map(0, int64_t(i) + 1));
  return maps;
}

}  // namespace

void choose_parts(const Maps& scores, const std::vector<uint16_t>& classes, const std::vector<uint16_t>& objects,
                  int height, int width, uint16_t* labels, float* confidence) {
  const size_t pixels = size_t(height) * size_t(width);
  std::set<uint16_t> with_parts;
  for (size_t label = 0; label < objects.size(); ++label)
    if (objects[label] != label) with_parts.insert(objects[label]);
  std::vector<uint16_t> winners(pixels);
  std::vector<float> best(pixels);
  for (const uint16_t object : with_parts) {
    const auto is_own = [&](uint16_t label) { return objects[label] == object; };
    std::vector<int64_t> parts;
    for (size_t map = 0; map < classes.size(); ++map)
      if (is_own(classes[map]) && classes[map] != object) parts.push_back(int64_t(map));
    if (parts.empty() || std::none_of(labels, labels + pixels, is_own)) continue;
    label_map(maps_of(scores, parts), height, width, winners.data(), best.data());
    for (size_t i = 0; i < pixels; ++i) {
      if (!is_own(labels[i])) continue;
      labels[i] = winners[i] > 0 ? classes[size_t(parts[winners[i] - 1])] : object;
      if (winners[i] > 0) confidence[i] = best[i];
    }
  }
}

}  // namespace pcaseg
