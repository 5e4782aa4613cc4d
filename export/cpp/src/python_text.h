// Text as Python writes it, so that the messages are the Python runtime's word for word.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pcaseg {

using Shape = std::vector<int64_t>;

/// Splits UTF-8 into code points; a surrogate that stands alone passes.
/// Throws std::invalid_argument, with the words of Python's decoder, where the bytes are no UTF-8.
std::u32string decode_utf8(std::string_view bytes);

/// The first `count` characters of UTF-8.
std::string start_of(std::string_view text, size_t count);

/// One code point as UTF-8, added to `text`.
void append_utf8(std::string& text, char32_t point);

/// True where Python's `str.isprintable` is, for all characters but those that Unicode has not assigned.
bool is_printable(char32_t point);

/// `repr` of a string of UTF-8.
std::string repr(std::string_view text);

/// `repr` of bytes.
std::string repr_bytes(std::string_view bytes);

/// A tuple of numbers: `()`, `(2,)`, `(2, 3)`.
std::string tuple(const Shape& numbers);

/// Parts with a separator between them.
std::string join(const std::vector<std::string>& parts, const std::string& separator);

/// `str(Path(path))`: no doubled slashes, no `.` parts, no slash at the end.
std::string plain_path(const std::string& path);

/// `str(Path(folder) / name)`.
std::string join_path(const std::string& folder, const std::string& name);

}  // namespace pcaseg
