#include "shortlist.h"

#include <algorithm>

namespace pcaseg {

constexpr float dropped_logit = -100;

SharedLogits share_classes(const WindowLogits& logits, int64_t first, int64_t windows, int64_t classes) {
  const Maps& given = logits.maps;
  if (logits.kept.empty()) {
    Maps maps(windows, given.classes, given.height, given.width);
    std::copy_n(given.map(first, 0), maps.values.size(), maps.values.data());
    return {std::move(maps), {}};
  }
  const int64_t* kept = logits.kept.data() + first * given.classes;
  std::vector<bool> is_kept(size_t(classes), false);
  for (int64_t i = 0; i < windows * given.classes; ++i) is_kept[kept[i]] = true;
  const auto dropped = std::find(is_kept.begin(), is_kept.end(), false);
  if (dropped != is_kept.end()) *dropped = true;
  std::vector<uint16_t> shared;
  std::vector<int64_t> place(size_t(classes), 0);
  for (int64_t label = 0; label < classes; ++label) {
    if (!is_kept[label]) continue;
    place[label] = int64_t(shared.size());
    shared.push_back(uint16_t(label));
  }
  Maps maps(windows, int64_t(shared.size()), given.height, given.width, dropped_logit);
  for (int64_t window = 0; window < windows; ++window)
    for (int64_t i = 0; i < given.classes; ++i)
      std::copy_n(given.map(first + window, i), maps.map_values(), maps.map(window, place[kept[window * given.classes + i]]));
  return {std::move(maps), std::move(shared)};
}

}  // namespace pcaseg
