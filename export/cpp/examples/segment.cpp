// Segments the frames on standard input, and writes the labels of each as a grey PNG.
//
//     pcaseg-segment scene.pcaseg room.safetensors labels/ < photo.png
//     ffmpeg -i drive.mp4 -f rawvideo -pix_fmt rgb24 - | pcaseg-segment scene.pcaseg room.safetensors labels/ --raw 640x480
#include <pcaseg.h>

#include <charconv>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "pictures.h"

namespace {

const char* const usage =
    "usage: pcaseg-segment BUNDLE VOCABULARY.safetensors FOLDER [--raw WIDTHxHEIGHT] [--threads N]\n"
    "                      [--strategy single|sliding] [--window-batch N] [--backend NAME]\n"
    "                      < frames (PNG, PPM, or raw RGB)\n";

using Segmenter = std::unique_ptr<pcaseg_segmenter, void (*)(pcaseg_segmenter*)>;

struct Options {
  pcaseg_options library = {};
  Picture raw;
};

void check(pcaseg_status status) {
  if (status != PCASEG_OK) throw std::runtime_error(pcaseg_error());
}

/// A whole number of 1 or more; 0 where the text is none.
int number_in(const std::string& text) {
  int number = 0;
  const char* const end = text.data() + text.size();
  const auto [behind, fault] = std::from_chars(text.data(), end, number);
  return fault == std::errc() && behind == end && number > 0 ? number : 0;
}

Options read_options(int count, char** words) {
  Options options;
  for (int i = 0; i < count; i += 2) {
    const std::string option = words[i], value = i + 1 < count ? words[i + 1] : "";
    const bool is_count = option == "--threads" || option == "--window-batch";
    const bool is_name = option == "--strategy" || option == "--backend";
    if (!is_count && !is_name && option != "--raw")
      throw std::runtime_error(option + ": no such option; pcaseg-segment --help shows them");
    if (i + 1 == count) throw std::runtime_error(option + ": give a value");
    if (is_name) (option == "--strategy" ? options.library.strategy : options.library.backend) = words[i + 1];
    if (is_count) {
      const int number = number_in(value);
      if (number == 0) throw std::runtime_error(option + " " + value + ": give a whole number of 1 or more");
      (option == "--threads" ? options.library.threads : options.library.window_batch) = number;
    }
    if (option == "--raw") {
      const size_t cross = value.find('x');
      options.raw.width = number_in(value.substr(0, cross));
      options.raw.height = cross == std::string::npos ? 0 : number_in(value.substr(cross + 1));
      if (options.raw.width == 0 || options.raw.height == 0)
        throw std::runtime_error("--raw " + value + ": give WIDTHxHEIGHT in pixels, such as 640x480");
    }
  }
  return options;
}

void segment_all(pcaseg_segmenter* segmenter, const std::string& folder, const Picture& raw) {
  std::vector<uint16_t> labels;
  for (int number = 0; const auto picture = read_picture(number, raw); ++number) {
    const pcaseg_frame frame = {picture->rgb.data(), picture->height, picture->width, 0};
    labels.resize(picture->rgb.size() / 3);
    pcaseg_timings times;
    check(pcaseg_segment(segmenter, &frame, labels.data(), nullptr, &times));
    char name[32];
    std::snprintf(name, sizeof name, "/%06d.png", number);
    write_labels(folder + name, labels, picture->height, picture->width, pcaseg_class_count(segmenter));
    std::printf("%s%s: %d x %d px, prepare %.2f ms, network %.2f ms, labels %.2f ms, total %.2f ms\n", folder.c_str(),
                name, picture->width, picture->height, times.prepare_ms, times.network_ms, times.labels_ms,
                times.total_ms);
  }
}

void run(int count, char** words) {
  if (count == 2 && words[1] == std::string("--help")) {
    std::fputs(usage, stdout);
    return;
  }
  if (count < 4)
    throw std::runtime_error("give BUNDLE, VOCABULARY.safetensors and FOLDER; pcaseg-segment --help says more");
  const Options options = read_options(count - 4, words + 4);
  pcaseg_segmenter* opened = nullptr;
  check(pcaseg_open(words[1], &options.library, &opened));
  const Segmenter segmenter(opened, pcaseg_close);
  check(pcaseg_load_vocabulary(opened, words[2]));
  segment_all(opened, words[3], options.raw);
}

}  // namespace

int main(int count, char** words) {
  try {
    run(count, words);
    flush_output();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
