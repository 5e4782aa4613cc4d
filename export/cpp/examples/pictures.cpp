#include "pictures.h"

#include <png.h>

#include <filesystem>
#include <memory>
#include <stdexcept>

namespace {

constexpr int largest_side_px = 1 << 14;

[[noreturn]] void refuse(const std::string& fault) { throw std::runtime_error(fault); }

[[noreturn]] void png_failed(png_structp, png_const_charp reason) { refuse(std::string("PNG: ") + reason + "; save it anew"); }

void png_warned(png_structp, png_const_charp) {}

Picture sized(int64_t height, int64_t width) {
  if (height < 1 || width < 1 || height > largest_side_px || width > largest_side_px)
    refuse(std::to_string(height) + " x " + std::to_string(width) + " pixels; give 1 to 16384 a side");
  Picture picture{int(height), int(width), {}};
  picture.rgb.resize(size_t(3 * height * width));
  return picture;
}

Picture read_png(std::FILE* stream) {
  struct Reader {
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, png_failed, png_warned);
    png_infop info = png_create_info_struct(png);
    ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  } reader;
  png_init_io(reader.png, stream);
  png_read_info(reader.png, reader.info);
  if (png_get_bit_depth(reader.png, reader.info) > 8) refuse("PNG: of 16 bits; save it with 8");
  Picture picture = sized(png_get_image_height(reader.png, reader.info), png_get_image_width(reader.png, reader.info));
  png_set_expand(reader.png);
  png_set_gray_to_rgb(reader.png);
  png_set_strip_alpha(reader.png);
  png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  std::vector<png_bytep> rows;
  for (int y = 0; y < picture.height; ++y) rows.push_back(picture.rgb.data() + size_t(y) * picture.width * 3);
  png_read_image(reader.png, rows.data());
  png_read_end(reader.png, nullptr);
  return picture;
}

/// A number of a PPM header; comments run from # to the end of the line.
int read_number(std::FILE* stream) {
  int byte = std::getc(stream);
  while (byte == '#' || byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t') {
    if (byte == '#')
      while (byte != '\n' && byte != EOF) byte = std::getc(stream);
    byte = std::getc(stream);
  }
  int number = -1;
  for (; byte >= '0' && byte <= '9' && number < 1'000'000; byte = std::getc(stream))
    number = (number < 0 ? 0 : 10 * number) + byte - '0';
  return number;  // the one space behind it is read
}

void fill(Picture& picture, std::FILE* stream) {
  if (std::fread(picture.rgb.data(), 1, picture.rgb.size(), stream) != picture.rgb.size()) refuse("cut short; send it whole");
}

Picture read_ppm(std::FILE* stream) {
  if (std::getc(stream) != 'P' || std::getc(stream) != '6') refuse("neither PNG nor binary PPM (P6); convert it, or give --raw");
  const int width = read_number(stream), height = read_number(stream), largest = read_number(stream);
  if (largest != 255) refuse("PPM: values up to " + std::to_string(largest) + "; save it with 255");
  Picture picture = sized(height, width);
  fill(picture, stream);
  return picture;
}

/// Writes a PNG; the file may be left cut off where that fails.
void write_png(const std::string& path, const std::vector<uint16_t>& labels, int height, int width, size_t classes) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  if (!file) refuse("no such folder");
  const int bytes = classes <= 256 ? 1 : 2;
  struct Writer {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, png_failed, png_warned);
    png_infop info = png_create_info_struct(png);
    ~Writer() { png_destroy_write_struct(&png, &info); }
  } writer;
  png_init_io(writer.png, file.get());
  png_set_IHDR(writer.png, writer.info, png_uint_32(width), png_uint_32(height), 8 * bytes, PNG_COLOR_TYPE_GRAY,
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(writer.png, writer.info);
  std::vector<uint8_t> row;
  for (int y = 0; y < height; ++y) {
    row.clear();
    for (int x = 0; x < width; ++x) {
      const uint16_t label = labels[size_t(y) * width + x];
      if (bytes == 2) row.push_back(uint8_t(label >> 8));  // PNG is big-endian
      row.push_back(uint8_t(label & 255));
    }
    png_write_row(writer.png, row.data());
  }
  png_write_end(writer.png, nullptr);
  if (std::fclose(file.release()) != 0) refuse("no room");
}

}  // namespace

std::optional<Picture> read_picture(int number, const Picture& raw) {
  const int first = std::getc(stdin);
  if (first == EOF && number == 0) refuse("standard input: holds no frame; give a PNG or PPM");
  if (first == EOF) return std::nullopt;
  std::ungetc(first, stdin);
  try {
    if (raw.width == 0) return first == 0x89 ? read_png(stdin) : read_ppm(stdin);
    Picture picture = sized(raw.height, raw.width);
    fill(picture, stdin);
    return picture;
  } catch (const std::runtime_error& error) {
    refuse("standard input, frame " + std::to_string(number) + ": " + error.what());
  }
}

void flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    refuse("standard output: cannot be written; what was written to files is whole");
}

void write_labels(const std::string& path, const std::vector<uint16_t>& labels, int height, int width, size_t classes) {
  const std::string part = path + ".part";
  try {
    write_png(part, labels, height, width, classes);
    std::filesystem::rename(part, path);
  } catch (const std::runtime_error&) {
    std::remove(part.c_str());
    refuse(path + ": cannot be written; make room or choose another folder");
  }
}
