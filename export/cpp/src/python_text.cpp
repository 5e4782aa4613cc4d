#include "python_text.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

namespace pcaseg {
namespace {

std::string formatted(const char* format, unsigned number) {
  char text[16];
  std::snprintf(text, sizeof text, format, number);
  return text;
}

[[noreturn]] void refuse(std::string_view bytes, size_t start, size_t end, const char* reason) {
  std::string where = end - start == 1
                          ? "byte " + formatted("0x%02x", uint8_t(bytes[start])) + " in position " + std::to_string(start)
                          : "bytes in position " + std::to_string(start) + "-" + std::to_string(end - 1);
  throw std::invalid_argument("'utf-8' codec can't decode " + where + ": " + reason);
}

/// Range of the byte that may follow a leading byte: narrower than 80..bf where shorter forms or nothing would result.
void second_range(uint8_t lead, uint8_t& low, uint8_t& high) {
  low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  high = lead == 0xf4 ? 0x8f : 0xbf;
}

}  // namespace

std::u32string decode_utf8(std::string_view bytes) {
  std::u32string points;
  points.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const uint8_t lead = bytes[at];
    const size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length == 0) refuse(bytes, at, at + 1, "invalid start byte");
    char32_t point = length == 1 ? lead : lead & (0x7f >> length);
    for (size_t i = 1; i < length; ++i) {
      uint8_t low = 0x80, high = 0xbf;
      if (i == 1) second_range(lead, low, high);
      if (at + i == bytes.size()) refuse(bytes, at, at + i, "unexpected end of data");
      const uint8_t byte = bytes[at + i];
      if (byte < low || byte > high) refuse(bytes, at, at + i, "invalid continuation byte");
      point = point << 6 | (byte & 0x3f);
    }
    points += point;
    at += length;
  }
  return points;
}

std::string start_of(std::string_view text, size_t count) {
  std::string start;
  for (char32_t point : decode_utf8(text).substr(0, count)) append_utf8(start, point);
  return start;
}

void append_utf8(std::string& text, char32_t point) {
  if (point < 0x80) {
    text += char(point);
  } else if (point < 0x800) {
    text += char(0xc0 | point >> 6);
    text += char(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    text += char(0xe0 | point >> 12);
    text += char(0x80 | (point >> 6 & 0x3f));
    text += char(0x80 | (point & 0x3f));
  } else {
    text += char(0xf0 | point >> 18);
    text += char(0x80 | (point >> 12 & 0x3f));
    text += char(0x80 | (point >> 6 & 0x3f));
    text += char(0x80 | (point & 0x3f));
  }
}

bool is_printable(char32_t point) {
  // Control, format, private and surrogate characters, and every separator but the space.
  static constexpr char32_t ranges[][2] = {
      {0x00, 0x1f},       {0x7f, 0xa0},       {0xad, 0xad},       {0x600, 0x605},     {0x61c, 0x61c},
      {0x6dd, 0x6dd},     {0x70f, 0x70f},     {0x890, 0x891},     {0x8e2, 0x8e2},     {0x1680, 0x1680},
      {0x180e, 0x180e},   {0x2000, 0x200f},   {0x2028, 0x202f},   {0x205f, 0x206f},   {0x3000, 0x3000},
      {0xd800, 0xf8ff},   {0xfeff, 0xfeff},   {0xfff9, 0xfffb},   {0x110bd, 0x110bd}, {0x110cd, 0x110cd},
      {0x13430, 0x1343f}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe00ff}, {0xf0000, 0x10ffff},
  };
  for (const auto& range : ranges)
    if (point >= range[0] && point <= range[1]) return false;
  return true;
}

std::string repr(std::string_view text) {
  const bool double_quotes = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char32_t quote = double_quotes ? '"' : '\'';
  std::string out(1, char(quote));
  for (char32_t point : decode_utf8(text)) {
    if (point == quote || point == '\\') {
      out += '\\';
      out += char(point);
    } else if (point == '\n') {
      out += "\\n";
    } else if (point == '\r') {
      out += "\\r";
    } else if (point == '\t') {
      out += "\\t";
    } else if (is_printable(point)) {
      append_utf8(out, point);
    } else {
      out += formatted(point < 0x100 ? "\\x%02x" : point < 0x10000 ? "\\u%04x" : "\\U%08x", point);
    }
  }
  return out + char(quote);
}

std::string repr_bytes(std::string_view bytes) {
  const bool double_quotes = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out = std::string("b") + quote;
  for (char byte : bytes) {
    if (byte == quote || byte == '\\') {
      out += '\\';
      out += byte;
    } else if (byte == '\n' || byte == '\r' || byte == '\t') {
      out += byte == '\n' ? "\\n" : byte == '\r' ? "\\r" : "\\t";
    } else if (byte >= 0x20 && byte < 0x7f) {
      out += byte;
    } else {
      out += formatted("\\x%02x", uint8_t(byte));
    }
  }
  return out + quote;
}

std::string tuple(const Shape& numbers) {
  std::vector<std::string> parts;
  for (int64_t number : numbers) parts.push_back(std::to_string(number));
  return "(" + join(parts, ", ") + (parts.size() == 1 ? ",)" : ")");
}

std::string join(const std::vector<std::string>& parts, const std::string& separator) {
  std::string out;
  for (const std::string& part : parts) out += (&part == &parts.front() ? "" : separator) + part;
  return out;
}

std::string plain_path(const std::string& path) {
  const size_t slashes = std::min(path.find_first_not_of('/'), path.size());
  const std::string root = slashes == 0 ? "" : slashes == 2 ? "//" : "/";  // POSIX gives two slashes a meaning
  std::vector<std::string> parts;
  for (size_t at = slashes; at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(at, end - at);
    if (!part.empty() && part != ".") parts.push_back(part);
    at = end + 1;
  }
  const std::string plain = root + join(parts, "/");
  return plain.empty() ? "." : plain;
}

std::string join_path(const std::string& folder, const std::string& name) {
  return folder == "." ? name : folder + (folder.back() == '/' ? "" : "/") + name;
}

}  // namespace pcaseg
