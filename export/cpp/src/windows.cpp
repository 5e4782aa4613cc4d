#include "windows.h"

#include <algorithm>
#include <cmath>

#include "error.h"
#include "python_text.h"
#include "resize.h"
#include "sigmoid.h"

namespace pcaseg {
namespace {

constexpr int tile_px = 64;

/// Resizes a square plane of float32 whose rows are `row` values apart.
void resize_square(const float* plane, int64_t side_in, int64_t row, int64_t side_out, float* out) {
  const std::vector<Tap> taps = bilinear_taps(side_in, side_out);
  resize_plane(plane, {row, 1}, taps, taps, out);
}

/// Resizes a frame to three planes, `side` x `side` each.
std::vector<float> resize_frame(const pcaseg_frame& frame, int64_t side) {
  std::vector<float> planes(size_t(3 * side * side));
  const std::vector<Tap> rows = bilinear_taps(frame.height, side), columns = bilinear_taps(frame.width, side);
  const int64_t row_bytes = frame.row_bytes != 0 ? int64_t(frame.row_bytes) : 3 * int64_t(frame.width);
  for (int channel = 0; channel < 3; ++channel)
    resize_plane(frame.pixels + channel, {row_bytes, 3}, rows, columns, planes.data() + channel * side * side);
  return planes;
}

/// How many windows lie over each pixel of the canvas.
std::vector<float> count_overlaps(const Sliding& sliding) {
  std::vector<float> overlaps(size_t(sliding.image_px * sliding.image_px));
  for (const auto& [top, left] : sliding.origins())
    for (int64_t y = top; y < top + sliding.window_px; ++y)
      for (int64_t x = left; x < left + sliding.window_px; ++x) ++overlaps[y * sliding.image_px + x];
  return overlaps;
}

/// The part of a frame that is labelled at a time: its taps, and the grid points of the scores that they read.
struct Tile {
  int top, left, bottom, right;
  const Tap *rows, *columns;  // of the whole frame

  int64_t first_row() const { return rows[top].low; }
  int64_t last_row() const { return rows[bottom - 1].high; }
  int64_t first_column() const { return columns[left].low; }
  int64_t last_column() const { return columns[right - 1].high; }
};

/// The classes that may be the best somewhere in a tile: a blended score lies between the least and the greatest of
/// the grid's, so a class whose greatest is below another's least loses everywhere.
std::vector<int64_t> candidates(const Maps& scores, const Tile& tile) {
  std::vector<float> greatest;
  float bound = 0;
  for (int64_t label = 0; label < scores.classes; ++label) {
    float least = INFINITY, most = -INFINITY;
    for (int64_t y = tile.first_row(); y <= tile.last_row(); ++y) {
      const float* row = scores.map(0, label) + y * scores.width;
      const auto [low, high] = std::minmax_element(row + tile.first_column(), row + tile.last_column() + 1);
      least = std::min(least, *low);
      most = std::max(most, *high);
    }
    bound = std::max(bound, least);
    greatest.push_back(most);
  }
  bound -= 1e-6f;  // blending rounds
  std::vector<int64_t> left;
  for (int64_t label = 0; label < scores.classes; ++label)
    if (greatest[label] >= bound) left.push_back(label);
  return left;
}

}  // namespace

Strategy strategy_of(const std::string& name) {
  if (name == "single") return Strategy::single;
  if (name == "sliding") return Strategy::sliding;
  throw Error(PCASEG_BAD_ARGUMENT, "strategy=" + repr(name) + ": choose one of single, sliding");
}

int64_t window_count(Strategy strategy, const Sliding& sliding) {
  return strategy == Strategy::single ? 1 : int64_t(sliding.origins().size()) + 1;
}

void prepare_windows(const pcaseg_frame& frame, Strategy strategy, const Manifest& manifest, float* inputs) {
  const int64_t side = manifest.size_px, canvas_px = manifest.sliding.image_px, window = manifest.sliding.window_px;
  if (strategy == Strategy::single) {
    const std::vector<float> whole = resize_frame(frame, side);
    std::copy(whole.begin(), whole.end(), inputs);
    return;
  }
  const std::vector<float> canvas = resize_frame(frame, canvas_px), whole = resize_frame(frame, window);
  for (const auto& [top, left] : manifest.sliding.origins()) {
    for (int channel = 0; channel < 3; ++channel, inputs += side * side) {
      const float* plane = canvas.data() + channel * canvas_px * canvas_px;
      resize_square(plane + top * canvas_px + left, window, canvas_px, side, inputs);
    }
  }
  for (int channel = 0; channel < 3; ++channel, inputs += side * side)
    resize_square(whole.data() + channel * window * window, window, window, side, inputs);
}

Maps merge_windows(Maps logits, Strategy strategy, const Sliding& sliding) {
  if (strategy == Strategy::single) {
    sigmoid(logits.values.data(), logits.values.size());
    return logits;
  }
  const int64_t side = sliding.image_px, window = sliding.window_px, last = logits.windows - 1;
  const std::vector<float> overlaps = count_overlaps(sliding);
  const std::vector<Tap> rows = bilinear_taps(logits.height, window), columns = bilinear_taps(logits.width, window);
  Maps scores(1, logits.classes, side, side);
  std::vector<float> part(size_t(window * window)), whole(size_t(side * side));
  const auto scores_of = [&](int64_t index, int64_t label) {
    resize_plane(logits.map(index, label), {logits.width, 1}, rows, columns, part.data());
    sigmoid(part.data(), part.size());
  };
  for (int64_t label = 0; label < logits.classes; ++label) {
    float* merged = scores.map(0, label);
    int64_t index = 0;
    for (const auto& [top, left] : sliding.origins()) {
      scores_of(index++, label);
      for (int64_t y = 0; y < window; ++y)
        for (int64_t x = 0; x < window; ++x) merged[(top + y) * side + left + x] += part[y * window + x];
    }
    scores_of(last, label);
    resize_square(part.data(), window, window, side, whole.data());
    for (int64_t i = 0; i < side * side; ++i) merged[i] = (merged[i] / overlaps[i] + whole[i]) * 0.5f;
  }
  return scores;
}

void label_map(const Maps& scores, int height, int width, uint16_t* labels, float* confidence) {
  const std::vector<Tap> rows = bilinear_taps(scores.height, height), columns = bilinear_taps(scores.width, width);
  std::vector<Tap> tile_columns;
  float values[tile_px * tile_px];
  for (int top = 0; top < height; top += tile_px) {
    for (int left = 0; left < width; left += tile_px) {
      const Tile tile{top, left, std::min(top + tile_px, height), std::min(left + tile_px, width), rows.data(),
                      columns.data()};
      const std::vector<Tap> tile_rows(rows.begin() + tile.top, rows.begin() + tile.bottom);
      tile_columns.assign(columns.begin() + tile.left, columns.begin() + tile.right);
      bool is_first = true;
      for (int64_t label : candidates(scores, tile)) {
        resize_plane(scores.map(0, label), {scores.width, 1}, tile_rows, tile_columns, values);
        const float* value = values;
        for (int y = tile.top; y < tile.bottom; ++y) {
          uint16_t* winners = labels + size_t(y) * width;
          float* best = confidence + size_t(y) * width;
          for (int x = tile.left; x < tile.right; ++x, ++value) {
            const bool is_better = is_first || *value > best[x];  // strictly: of equals the first stays
            best[x] = is_better ? *value : best[x];
            winners[x] = is_better ? uint16_t(label) : winners[x];
          }
        }
        is_first = false;
      }
    }
  }
}

}  // namespace pcaseg
