#include "segmenter.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>

#include "error.h"
#include "parts.h"
#include "python_text.h"
#include "shortlist.h"
#include "vocabulary.h"

namespace pcaseg {
namespace {

/// Times consecutive stages in milliseconds.
class Clock {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double, std::milli> passed = now - last_;
    last_ = now;
    return passed.count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

constexpr int most_threads = 1024;  // as in Python

Strategy choose_strategy(const Manifest& manifest, const char* asked) {
  const Strategy strategy = strategy_of(asked ? asked : manifest.strategy.value_or("single"));
  if (asked && manifest.strategy && *manifest.strategy != asked)
    throw Error(PCASEG_BAD_ARGUMENT, "strategy=" + repr(std::string_view(asked)) + ": the bundle's graph holds " +
                                         repr(std::string_view(*manifest.strategy)) +
                                         "; leave the strategy out, or export with --strategy " + asked);
  return strategy;
}

int64_t checked_count(const char* name, int value, int fallback, int most = std::numeric_limits<int>::max()) {
  if (value < 0 || value > most) {
    const std::string bounds = most == std::numeric_limits<int>::max() ? " or more" : " to " + std::to_string(most);
    throw Error(PCASEG_BAD_ARGUMENT, std::string(name) + "=" + std::to_string(value) + ": give 1" + bounds);
  }
  return value == 0 ? fallback : value;
}

/// Puts for each of `count` places what the table holds there; an empty table changes nothing.
void look_up(const std::vector<uint16_t>& table, uint16_t* places, size_t count) {
  if (!table.empty()) std::transform(places, places + count, places, [&](uint16_t place) { return table[place]; });
}

size_t row_bytes(const pcaseg_frame& frame) { return 3 * size_t(frame.width); }

}  // namespace

Segmenter::Segmenter(const std::string& path, const pcaseg_options& options)
    : bundle_(path),
      strategy_(choose_strategy(bundle_.manifest(), options.strategy)),
      window_batch_(checked_count("window_batch", options.window_batch, 1)),
      backend_(open_backend(options.backend ? options.backend : "onnxruntime", bundle_,
                            int(checked_count("threads", options.threads, 0, most_threads)))) {}

void Segmenter::set_vocabulary(Vocabulary vocabulary, const std::string& source) {
  check_fits(vocabulary, bundle_.manifest(), source);
  vocabulary_ = std::move(vocabulary);
}

pcaseg_timings Segmenter::segment(const pcaseg_frame* frames, size_t count, uint16_t* labels, float* confidence) {
  if (vocabulary_.names.empty())
    throw Error(PCASEG_BAD_VOCABULARY, "no vocabulary: set one before segmenting");
  check_frames(frames, count);
  std::vector<float> own;  // where the caller wants no confidence
  if (confidence == nullptr) {
    own.resize(count * size_t(frames->height) * size_t(frames->width));
    confidence = own.data();
  }
  pcaseg_timings times{};
  Clock clock;
  if (bundle_.manifest().is_labels) {
    run_labels(frames, count, labels, confidence);
    times.network_ms = clock.lap();
  } else {
    run_windows(frames, count, labels, confidence, times);
  }
  times.total_ms = times.prepare_ms + times.network_ms + times.labels_ms;
  return times;
}

void Segmenter::check_frames(const pcaseg_frame* frames, size_t count) const {
  if (frames == nullptr || count == 0) throw Error(PCASEG_BAD_ARGUMENT, "frames: none are given; give one or more");
  const Manifest& manifest = bundle_.manifest();
  for (const pcaseg_frame* frame = frames; frame != frames + count; ++frame) {
    const std::string size = std::to_string(frame->height) + " x " + std::to_string(frame->width) + " pixels";
    if (frame->pixels == nullptr || frame->height < 1 || frame->width < 1)
      throw Error(PCASEG_BAD_IMAGE, "image: " + size + "; give RGB pixels, 1 x 1 or more");
    if (frame->row_bytes != 0 && frame->row_bytes < row_bytes(*frame))
      throw Error(PCASEG_BAD_IMAGE, "image: rows of " + std::to_string(frame->row_bytes) + " bytes do not hold " +
                                        std::to_string(frame->width) + " pixels; give 3 bytes for each");
    if (frame->height != frames->height || frame->width != frames->width)
      throw Error(PCASEG_BAD_IMAGE, "image: " + size + " in a batch of frames of another size; give frames of one size");
  }
  const auto& size = manifest.image_size;
  if (size && (frames->height != size->first || frames->width != size->second))
    throw Error(PCASEG_BAD_IMAGE, "image: " + std::to_string(frames->height) + " x " + std::to_string(frames->width) +
                                      " pixels (height x width), but the bundle takes " + std::to_string(size->first) +
                                      " x " + std::to_string(size->second) +
                                      " alone; resize the frame, or export without --image-size");
  if (manifest.is_labels && manifest.shortlist && vocabulary_.rows() > most_indexed)
    throw Error(PCASEG_BAD_VOCABULARY, "vocabulary: " + std::to_string(vocabulary_.rows()) +
                                           " names, but a graph of labels with a shortlist takes at most 4096; give "
                                           "fewer, or export logits");
}

void Segmenter::run_labels(const pcaseg_frame* frames, size_t count, uint16_t* labels, float* confidence) {
  const size_t row = row_bytes(*frames), height = size_t(frames->height);
  std::vector<uint8_t> packed(count * height * row);
  for (size_t i = 0; i < count; ++i)
    for (size_t y = 0; y < height; ++y)
      std::copy_n(frames[i].pixels + y * (frames[i].row_bytes ? frames[i].row_bytes : row), row,
                  packed.data() + (i * height + y) * row);
  const size_t pixels = count * height * size_t(frames->width);
  backend_->labels(packed.data(), int64_t(count), frames->height, frames->width, vocabulary_, labels, confidence);
  check_finite(confidence, pixels);
  look_up(vocabulary_.class_of_row, labels, pixels);
}

void Segmenter::run_windows(const pcaseg_frame* frames, size_t count, uint16_t* labels, float* confidence,
                            pcaseg_timings& times) {
  const Manifest& manifest = bundle_.manifest();
  const int64_t windows = window_count(strategy_, manifest.sliding);
  const size_t input_values = size_t(3 * manifest.size_px * manifest.size_px), pixels = size_t(frames->height) * size_t(frames->width);
  Clock clock;
  std::vector<float> inputs(count * size_t(windows) * input_values);
  for (size_t i = 0; i < count; ++i)
    prepare_windows(frames[i], strategy_, manifest, inputs.data() + i * size_t(windows) * input_values);
  times.prepare_ms = clock.lap();
  const WindowLogits logits = all_logits(inputs, windows * int64_t(count));
  check_finite(logits.maps.values.data(), logits.maps.values.size());
  times.network_ms = clock.lap();
  for (size_t i = 0; i < count; ++i) {
    SharedLogits shared = share_classes(logits, int64_t(i) * windows, windows, vocabulary_.rows());
    const Maps scores = merge_windows(std::move(shared.maps), strategy_, manifest.sliding);
    uint16_t* first = labels + i * pixels;
    label_map(scores, frames->height, frames->width, first, confidence + i * pixels);
    std::vector<uint16_t> classes = std::move(shared.classes);
    if (classes.empty()) classes = vocabulary_.class_of_row;
    else look_up(vocabulary_.class_of_row, classes.data(), classes.size());
    look_up(classes, first, pixels);
    if (vocabulary_.objects.empty()) continue;
    if (classes.empty()) {
      classes.resize(size_t(scores.classes));
      std::iota(classes.begin(), classes.end(), uint16_t(0));
    }
    choose_parts(scores, classes, vocabulary_.objects, frames->height, frames->width, first, confidence + i * pixels);
  }
  times.labels_ms = clock.lap();
}

/// Runs windows through the network, `window_batch` at a time.
WindowLogits Segmenter::all_logits(const std::vector<float>& inputs, int64_t windows) {
  const size_t input_values = inputs.size() / size_t(windows);
  WindowLogits all = backend_->logits(inputs.data(), std::min(windows, window_batch_), vocabulary_);
  for (int64_t first = window_batch_; first < windows; first += window_batch_) {
    const int64_t count = std::min(windows - first, window_batch_);
    const WindowLogits part = backend_->logits(inputs.data() + size_t(first) * input_values, count, vocabulary_);
    all.maps.windows += count;
    all.maps.values.insert(all.maps.values.end(), part.maps.values.begin(), part.maps.values.end());
    all.kept.insert(all.kept.end(), part.kept.begin(), part.kept.end());
  }
  return all;
}

void Segmenter::check_finite(const float* values, size_t count) const {
  if (!std::all_of(values, values + count, [](float value) { return std::isfinite(value); }))
    throw Error(PCASEG_FAILED, backend_->name() + ": the network returned values that are not finite; check the bundle "
                                                  "with pcaseg check, or export it in float32");
}

}  // namespace pcaseg
