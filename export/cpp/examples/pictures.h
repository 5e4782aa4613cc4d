// Pictures for the examples: frames from a stream, labels to PNG.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

struct Picture {
  int height = 0, width = 0;
  std::vector<uint8_t> rgb;
};

/// The next frame of standard input, or nothing behind the last: PNG (8 bits) or binary PPM; or, where `raw` gives a
/// size, bare RGB bytes of that size. `number` counts from 0. Throws std::runtime_error where the frame is damaged, or
/// where there is none at all.
std::optional<Picture> read_picture(int number, const Picture& raw = {});

/// Writes out what was printed; throws std::runtime_error where some of it is lost.
void flush_output();

/// Writes labels as grey values, of 8 bits up to 256 classes, else of 16; the file is there whole or not at all. Throws
/// std::runtime_error.
void write_labels(const std::string& path, const std::vector<uint16_t>& labels, int height, int width, size_t classes);
