// Changes the vocabulary of an open segmenter: one frame, seen with one list of classes after another.
//
//     pcaseg-swap scene.pcaseg kitchen.safetensors garden.safetensors < photo.png
#include <pcaseg.h>

#include <cstdio>
#include <exception>

#include "pictures.h"

namespace {

int fail(const char* sentence) {
  std::fprintf(stderr, "error: %s\n", sentence);
  return 2;
}

/// Prints the share of the frame that each class present takes.
void print_shares(const pcaseg_segmenter* segmenter, const std::vector<uint16_t>& labels) {
  std::vector<size_t> pixels(pcaseg_class_count(segmenter));
  for (uint16_t label : labels) ++pixels[label];
  for (size_t label = 0; label < pixels.size(); ++label)
    if (pixels[label] > 0)
      std::printf("  %5.1f %% %s\n", 100.0 * double(pixels[label]) / double(labels.size()), pcaseg_class_name(segmenter, label));
}

int run(pcaseg_segmenter* segmenter, int count, char** vocabularies) {
  const auto picture = read_picture(0);
  const pcaseg_frame frame = {picture->rgb.data(), picture->height, picture->width, 0};
  std::vector<uint16_t> labels(picture->rgb.size() / 3);
  for (int i = 0; i < count; ++i) {
    if (pcaseg_load_vocabulary(segmenter, vocabularies[i])) return fail(pcaseg_error());
    if (pcaseg_segment(segmenter, &frame, labels.data(), nullptr, nullptr)) return fail(pcaseg_error());
    std::printf("%s\n", vocabularies[i]);
    print_shares(segmenter, labels);
  }
  flush_output();
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count < 3) return fail("usage: pcaseg-swap BUNDLE VOCABULARY.safetensors... < frame (PNG or PPM)");
  pcaseg_segmenter* segmenter = nullptr;
  int code = 0;
  try {
    code = pcaseg_open(words[1], nullptr, &segmenter) ? fail(pcaseg_error()) : run(segmenter, count - 2, words + 2);
  } catch (const std::exception& error) {
    code = fail(error.what());
  }
  pcaseg_close(segmenter);
  return code;
}
