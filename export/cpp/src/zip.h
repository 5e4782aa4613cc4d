// Zip files as Python's `zipfile` reads them: stored and deflated members, also beyond 4 GiB, checked as strictly.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace pcaseg {

class Zip {
 public:
  /// Reads the directory at the end of the file.
  /// Throws std::invalid_argument where it is no zip file, std::system_error where it cannot be read.
  explicit Zip(const std::string& path);

  /// Names of the members, in the directory's order.
  std::vector<std::string> names() const;

  /// True where there is a member of that name.
  bool has(const std::string& name) const { return find(name) != nullptr; }

  /// At most `limit` bytes of a member, of which there is one. Its checksum is checked where all of it is read.
  /// Throws std::invalid_argument, with the words of `zipfile`, where it is damaged or of a kind that is not read.
  std::string read(const std::string& name, uint64_t limit);

 private:
  struct Member {
    std::string name, whole_name;  // in UTF-8; the first ends at a NUL
    unsigned flags, method;
    uint32_t checksum;
    uint64_t stored_bytes, bytes;
    int64_t offset;
  };

  struct Directory {
    int64_t place;
    uint64_t bytes, offset;
    bool is_64;
  };

  Directory find_directory();
  void widen(Directory& directory);
  void read_directory(const Directory& directory);
  const Member* find(const std::string& name) const;
  std::string bytes_at(int64_t place, uint64_t count);
  uint64_t skip_header(const Member& member);
  std::string inflated(const Member& member, uint64_t place, uint64_t limit);

  std::ifstream file_;
  int64_t size_ = 0;
  std::vector<Member> members_;
};

}  // namespace pcaseg
