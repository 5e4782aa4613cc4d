#include "backend.h"

#include <algorithm>

#include "error.h"

namespace pcaseg {
namespace {

[[noreturn]] void refuse(const std::string& found) {
  throw Error(PCASEG_BAD_BUNDLE, segmenter_name + (" returned " + found) + "; export the bundle anew");
}

/// True where no class is named that there is none of, and each row ascends.
bool are_ascending(const std::vector<int64_t>& kept, size_t row, int64_t classes) {
  for (size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] < 0 || kept[i] >= classes) return false;
    if (i % row != 0 && kept[i] <= kept[i - 1]) return false;
  }
  return true;
}

const std::vector<float>& floats(const Output& output) {
  if (output.floats.empty()) refuse("other numbers than float32");
  return output.floats;
}

const std::vector<int64_t>& indices(const Output& output) {
  if (output.integers.empty()) refuse("indices of another type");
  return output.integers;
}

Maps maps_of(Output& output) {
  floats(output);
  return {output.shape, std::move(output.floats)};
}

}  // namespace

WindowLogits Backend::logits(const float* windows, int64_t count, const Vocabulary& vocabulary) {
  const int64_t side = manifest_.size_px, classes = vocabulary.rows();
  std::vector<Output> outputs = run({windows, nullptr, {count, 3, side, side}}, vocabulary);
  const Shape& found = outputs[0].shape;
  if (!manifest_.shortlist) {
    if (found.size() != 4 || found[0] != count || found[1] != classes)
      refuse(tuple(found) + " for " + std::to_string(count) + " windows and " + std::to_string(classes) + " classes");
    return {maps_of(outputs[0]), {}};
  }
  const int64_t most = std::min(classes, *manifest_.shortlist);
  const Shape& named = outputs[1].shape;
  const std::vector<int64_t>& kept = indices(outputs[1]);
  const bool fits = found.size() == 4 && Shape(found.begin(), found.begin() + 2) == named && named == Shape{count, most};
  if (!fits || !are_ascending(kept, size_t(most), classes))
    refuse(tuple(found) + " and " + tuple(named) + ", which are not " + std::to_string(most) + " of " +
           std::to_string(classes) + " classes for " + std::to_string(count) + " windows");
  return {maps_of(outputs[0]), kept};
}

void Backend::labels(const uint8_t* frames, int64_t count, int64_t height, int64_t width, const Vocabulary& vocabulary,
                     uint16_t* labels, float* confidence) {
  const Shape pixels{count, height, width};
  const std::vector<Output> outputs = run({nullptr, frames, {count, height, width, 3}}, vocabulary);
  if (outputs[0].shape != pixels || outputs[1].shape != pixels)
    refuse(tuple(outputs[0].shape) + " and " + tuple(outputs[1].shape) + " for images of " + tuple(pixels));
  std::copy(indices(outputs[0]).begin(), indices(outputs[0]).end(), labels);
  std::copy(floats(outputs[1]).begin(), floats(outputs[1]).end(), confidence);
}

std::unique_ptr<Backend> open_backend(const std::string& name, Bundle& bundle, int threads) {
  if (name == "onnxruntime") return open_onnxruntime(bundle, threads);
#ifdef PCASEG_TENSORRT
  if (name == "tensorrt") return open_tensorrt(bundle);
  const char* const choices = "onnxruntime, tensorrt";
#else
  const char* const choices = "onnxruntime";
#endif
  throw Error(PCASEG_BAD_ARGUMENT, "backend=" + repr(std::string_view(name)) + ": choose one of " + choices);
}

}  // namespace pcaseg
