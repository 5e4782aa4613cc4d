// Segments the frames on standard input, and writes the labels of each as a grey PNG.
//
//     pcaseg-segment scene.pcaseg room.safetensors labels/ < photo.png
//     ffmpeg -i drive.mp4 -f rawvideo -pix_fmt rgb24 - | pcaseg-segment scene.pcaseg room.safetensors labels/ --raw 640x480
#include <pcaseg.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "pictures.h"

namespace {

const char* const usage =
    "usage: pcaseg-segment BUNDLE VOCABULARY.safetensors FOLDER [--raw WIDTHxHEIGHT] [--threads N]\n"
    "                      [--strategy single|sliding] [--window-batch N] [--backend NAME]\n"
    "                      < frames (PNG, PPM, or raw RGB)\n";

int fail(const char* sentence) {
  std::fprintf(stderr, "error: %s\n", sentence);
  return 2;
}

int segment_all(pcaseg_segmenter* segmenter, const std::string& folder, const Picture& raw) {
  std::vector<uint16_t> labels;
  for (int number = 0; const auto picture = read_picture(stdin, raw); ++number) {
    const pcaseg_frame frame = {picture->rgb.data(), picture->height, picture->width, 0};
    labels.resize(picture->rgb.size() / 3);
    pcaseg_timings times;
    if (pcaseg_segment(segmenter, &frame, labels.data(), nullptr, &times)) return fail(pcaseg_error());
    char name[32];
    std::snprintf(name, sizeof name, "/%06d.png", number);
    write_labels(folder + name, labels, picture->height, picture->width, pcaseg_class_count(segmenter));
    std::printf("%s%s: %d x %d px, prepare %.2f ms, network %.2f ms, labels %.2f ms, total %.2f ms\n", folder.c_str(),
                name, picture->width, picture->height, times.prepare_ms, times.network_ms, times.labels_ms,
                times.total_ms);
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  pcaseg_options options = {};
  Picture raw;
  for (int i = 4; i < count; i += 2) {
    const std::string option = words[i], value = i + 1 < count ? words[i + 1] : "";
    char end = 0;
    if (option == "--threads") options.threads = std::atoi(value.c_str());
    else if (option == "--window-batch") options.window_batch = std::atoi(value.c_str());
    else if (option == "--backend" && i + 1 < count) options.backend = words[i + 1];
    else if (option == "--strategy" && i + 1 < count) options.strategy = words[i + 1];
    else if (option != "--raw" || std::sscanf(value.c_str(), "%dx%d%c", &raw.width, &raw.height, &end) != 2) return fail(usage);
  }
  if (count < 4) return fail(usage);
  pcaseg_segmenter* segmenter = nullptr;
  int code = 0;
  try {
    if (pcaseg_open(words[1], &options, &segmenter) || pcaseg_load_vocabulary(segmenter, words[2]))
      code = fail(pcaseg_error());
    else
      code = segment_all(segmenter, words[3], raw);
  } catch (const std::exception& error) {
    code = fail(error.what());
  }
  pcaseg_close(segmenter);
  return code;
}
