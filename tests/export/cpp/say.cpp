// Opens what a corpus holds, through the C interface, and prints a line for each: the status and the sentence.
//
//     say GOOD_BUNDLE WRITTEN... < corpus
//
// The corpus is a row of inputs: a byte with the number of the path to write it to, four with its length, its bytes.
// What is written to a path that ends in .safetensors is loaded as a vocabulary; else the first part of the path is
// opened as a bundle.
#include <pcaseg.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>

namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

pcaseg_status try_input(pcaseg_segmenter* good, const std::string& path) {
  if (ends_with(path, ".safetensors")) return pcaseg_load_vocabulary(good, path.c_str());
  pcaseg_segmenter* opened = nullptr;
  const pcaseg_status status = pcaseg_open(path.substr(0, path.find('/')).c_str(), nullptr, &opened);
  pcaseg_close(opened);
  return status;
}

}  // namespace

int main(int count, char** words) {
  pcaseg_segmenter* good = nullptr;
  if (count < 3 || pcaseg_open(words[1], nullptr, &good)) {
    std::cerr << pcaseg_error() << "\n";
    return 2;
  }
  for (int place; (place = std::getchar()) != EOF && place + 2 < count;) {
    uint32_t length = 0;
    if (std::fread(&length, sizeof length, 1, stdin) != 1) return 3;
    std::string bytes(length, '\0');
    if (std::fread(bytes.data(), 1, length, stdin) != length) return 3;
    const std::string path = words[place + 2];
    std::ofstream(path, std::ios::binary) << bytes;
    const pcaseg_status status = try_input(good, path);
    std::cout << status << ' ' << (status ? pcaseg_error() : "") << "\n";
  }
  pcaseg_close(good);
  return 0;
}
