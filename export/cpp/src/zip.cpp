#include "zip.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "python_text.h"

namespace pcaseg {
namespace {

constexpr size_t end_bytes = 22, end_64_bytes = 56, locator_bytes = 20, entry_bytes = 46, header_bytes = 30;
constexpr unsigned newest_version = 63, encrypted = 0x1, patched = 0x20, strongly_encrypted = 0x40, in_utf8 = 0x800;
constexpr unsigned stored = 0, deflated = 8, bzip2 = 12, lzma = 14;
constexpr uint64_t in_extra = 0xffffffff;  // a size or place that stands, in 64 bits, in the extra field
constexpr size_t chunk_bytes = 1 << 18;

/// A little-endian number within bytes.
uint64_t number(std::string_view bytes, size_t place, size_t width) {
  uint64_t value = 0;
  for (size_t i = width; i-- > 0;) value = value << 8 | uint8_t(bytes.at(place + i));
  return value;
}

[[noreturn]] void refuse(const std::string& reason) { throw std::invalid_argument(reason); }

/// Replaces, in their order, the numbers that the extra field holds in 64 bits.
void widen(std::string_view extra, uint64_t& bytes, uint64_t& stored_bytes, uint64_t& offset) {
  while (extra.size() >= 4) {
    const uint64_t kind = number(extra, 0, 2), length = number(extra, 2, 2);
    if (length + 4 > extra.size()) refuse("Corrupt extra field");
    if (kind == 1) {
      size_t place = 4;
      for (uint64_t* value : {&bytes, &stored_bytes, &offset}) {
        if (*value != in_extra) continue;
        if (place + 8 > length + 4) refuse("Corrupt zip64 extra field");
        *value = number(extra, place, 8);
        place += 8;
      }
    }
    extra.remove_prefix(length + 4);
  }
}

/// A name in UTF-8; where its flag does not say that it is, it is in the alphabet of old PCs.
std::string decoded(const std::string& name, unsigned flags) {
  static const std::u32string upper_half =
      U"ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐"
      U"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0";
  if (flags & in_utf8) {
    decode_utf8(name);
    return name;
  }
  std::string text;
  for (uint8_t byte : name) append_utf8(text, byte < 128 ? byte : upper_half[byte - 128]);
  return text;
}

}  // namespace

Zip::Zip(const std::string& path) : file_(path, std::ios::binary) {
  if (!file_) throw std::system_error(errno, std::generic_category());
  file_.seekg(0, std::ios::end);
  size_ = file_.tellg();
  read_directory(find_directory());
}

std::vector<std::string> Zip::names() const {
  std::vector<std::string> names;
  for (const Member& member : members_) names.push_back(member.name);
  return names;
}

const Zip::Member* Zip::find(const std::string& name) const {
  const auto found = std::find_if(members_.rbegin(), members_.rend(), [&](const Member& m) { return m.name == name; });
  return found == members_.rend() ? nullptr : &*found;  // of equal names the last
}

/// As many bytes as there are, up to `count`.
std::string Zip::bytes_at(int64_t place, uint64_t count) {
  if (place < 0) refuse("[Errno 22] Invalid argument");
  std::string bytes(std::min<uint64_t>(count, std::max<int64_t>(0, size_ - place)), '\0');
  file_.clear();
  file_.seekg(place);
  if (!file_.read(bytes.data(), bytes.size())) throw std::system_error(EIO, std::generic_category());
  return bytes;
}

/// The record at the end of the file: without a comment, or before one of up to 65,535 bytes.
Zip::Directory Zip::find_directory() {
  const int64_t first = std::max<int64_t>(0, size_ - int64_t(end_bytes) - (1 << 16));
  const std::string tail = bytes_at(first, size_ - first);
  size_t at = tail.size() < end_bytes ? tail.npos : tail.size() - end_bytes;
  const std::string_view mark("PK\5\6", 4);
  if (at == tail.npos || tail.compare(at, 4, mark) != 0 || number(tail, tail.size() - 2, 2) != 0) at = tail.rfind(mark);
  if (at == tail.npos || at + end_bytes > tail.size()) refuse("File is not a zip file");
  Directory directory{first + int64_t(at), number(tail, at + 12, 4), number(tail, at + 16, 4), false};
  widen(directory);
  return directory;
}

/// Takes the numbers of the 64-bit record, where one stands before the usual one.
void Zip::widen(Directory& directory) {
  const int64_t locator_place = directory.place - int64_t(locator_bytes);
  const int64_t record_place = locator_place - int64_t(end_64_bytes);
  if (locator_place < 0) return;
  const std::string locator = bytes_at(locator_place, locator_bytes);
  if (locator.compare(0, 4, "PK\6\7", 4) != 0) return;
  if (number(locator, 4, 4) != 0 || number(locator, 16, 4) > 1) refuse("zipfiles that span multiple disks");
  if (record_place < 0) return;
  const std::string record = bytes_at(record_place, end_64_bytes);
  if (record.compare(0, 4, "PK\6\6", 4) != 0) return;
  directory.bytes = number(record, 40, 8);
  directory.offset = number(record, 48, 8);
  directory.is_64 = true;
}

void Zip::read_directory(const Directory& directory) {
  const int64_t room = directory.place - (directory.is_64 ? int64_t(locator_bytes + end_64_bytes) : 0);
  const int64_t start = room - int64_t(directory.bytes);  // what precedes the archive shifts every place in it
  if (directory.bytes > uint64_t(size_) || start < 0) refuse("Bad offset for central directory");
  const int64_t shift = start - int64_t(directory.offset);
  const std::string data = bytes_at(start, directory.bytes);
  for (size_t at = 0; at < data.size();) {
    if (at + entry_bytes > data.size()) refuse("Truncated central directory");
    const std::string_view entry = std::string_view(data).substr(at);
    if (entry.substr(0, 4) != std::string_view("PK\1\2", 4)) refuse("Bad magic number for central directory");
    if (number(entry, 6, 2) % 256 > newest_version) refuse("zip file version");
    const size_t name_bytes = number(entry, 28, 2), extra_bytes = number(entry, 30, 2), comment = number(entry, 32, 2);
    Member member;
    member.flags = number(entry, 8, 2);
    member.method = number(entry, 10, 2);
    member.checksum = number(entry, 16, 4);
    member.stored_bytes = number(entry, 20, 4);
    member.bytes = number(entry, 24, 4);
    uint64_t offset = number(entry, 42, 4);
    member.whole_name = decoded(std::string(entry.substr(entry_bytes, name_bytes)), member.flags);
    member.name = member.whole_name.substr(0, member.whole_name.find('\0'));
    const size_t extra_place = std::min(entry_bytes + name_bytes, entry.size());
    pcaseg::widen(entry.substr(extra_place, extra_bytes), member.bytes, member.stored_bytes, offset);
    member.offset = int64_t(offset) + shift;
    members_.push_back(member);
    at += entry_bytes + name_bytes + extra_bytes + comment;
  }
}

/// The place of a member's bytes, behind a header that has to agree with the directory.
uint64_t Zip::skip_header(const Member& member) {
  const std::string header = bytes_at(member.offset, header_bytes);
  if (header.size() != header_bytes) refuse("Truncated file header");
  if (header.compare(0, 4, "PK\3\4", 4) != 0) refuse("Bad magic number for file header");
  const size_t name_bytes = number(header, 26, 2), extra_bytes = number(header, 28, 2);
  const std::string name = bytes_at(member.offset + header_bytes, name_bytes);
  if (member.flags & patched) refuse("compressed patched data (flag bit 5)");
  if (member.flags & strongly_encrypted) refuse("strong encryption (flag bit 6)");
  if (decoded(name, number(header, 6, 2)) != member.whole_name)
    refuse("File name in directory " + repr(member.whole_name) + " and header " + repr_bytes(name) + " differ.");
  if (member.flags & encrypted)
    refuse("File " + repr(member.name) + " is encrypted, password required for extraction");
  return member.offset + header_bytes + name_bytes + extra_bytes;
}

std::string Zip::read(const std::string& name, uint64_t limit) {
  const Member& member = *find(name);
  const uint64_t place = skip_header(member);
  if (member.method == bzip2 || member.method == lzma) refuse("bzip2 and LZMA are not read in C++");
  if (member.method != stored && member.method != deflated) refuse("That compression method is not supported");
  const uint64_t wanted = std::min(limit, member.bytes);
  std::string bytes = member.method == stored ? bytes_at(place, std::min(member.stored_bytes, wanted))
                                              : inflated(member, place, wanted);
  if (bytes.size() < wanted && member.method == stored && bytes.size() < member.stored_bytes) refuse("");
  const bool is_whole = bytes.size() < limit || bytes.size() == member.bytes;
  if (is_whole && crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()) != member.checksum)
    refuse("Bad CRC-32 for file " + repr(member.name));
  return bytes;
}

std::string Zip::inflated(const Member& member, uint64_t place, uint64_t limit) {
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, int (*)(z_stream*)> closing(&stream, inflateEnd);
  std::string out, chunk, piece(chunk_bytes, '\0');
  int state = Z_OK;
  for (uint64_t left = member.stored_bytes; state != Z_STREAM_END && out.size() < limit;) {
    if (stream.avail_in == 0) {
      if (left == 0) break;
      chunk = bytes_at(place, std::min<uint64_t>(left, chunk_bytes));
      if (chunk.empty()) refuse("");  // Python's EOFError says no more
      place += chunk.size();
      left -= chunk.size();
      stream.next_in = reinterpret_cast<Bytef*>(chunk.data());
      stream.avail_in = chunk.size();
    }
    do {
      stream.next_out = reinterpret_cast<Bytef*>(piece.data());
      stream.avail_out = piece.size();
      state = inflate(&stream, Z_NO_FLUSH);
      if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR)
        refuse("Error " + std::to_string(state) + " while decompressing data" +
               (stream.msg ? std::string(": ") + stream.msg : ""));
      out.append(piece, 0, piece.size() - stream.avail_out);
    } while (stream.avail_out == 0 && out.size() < limit);
  }
  out.resize(std::min<uint64_t>(out.size(), limit));
  return out;
}

}  // namespace pcaseg
