#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace pcaseg {
namespace {

constexpr size_t chunk_bytes = 1 << 22;

[[noreturn]] void fail() { throw std::system_error(errno, std::generic_category()); }

/// An open file, closed at the end of its scope.
struct Descriptor {
  explicit Descriptor(const std::string& path) : number(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (number < 0) fail();
  }
  ~Descriptor() { close(number); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  const int number;
};

}  // namespace

PathKind kind_of(const std::string& path) {
  struct stat found;
  if (stat(path.c_str(), &found) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return PathKind::nothing;
    fail();
  }
  return S_ISDIR(found.st_mode) ? PathKind::folder : S_ISREG(found.st_mode) ? PathKind::file : PathKind::other;
}

std::string read_file(const std::string& path, uint64_t limit) {
  const Descriptor file(path);
  std::string bytes;
  while (bytes.size() < limit) {
    const size_t filled = bytes.size();
    bytes.resize(filled + std::min<uint64_t>(chunk_bytes, limit - filled));
    const ssize_t count = ::read(file.number, bytes.data() + filled, bytes.size() - filled);
    if (count < 0) fail();
    bytes.resize(filled + count);
    if (count == 0) break;
  }
  return bytes;
}

std::string refusal(const std::string& path, int number) {
  const char* mend = "check the path and its drive";
  if (number == ENAMETOOLONG) mend = "shorten it";
  if (number == EACCES || number == EPERM) mend = "ask for the right to it";
  if (number == ELOOP) mend = "mend its links";
  return path + ": cannot be used (" + std::strerror(number) + "); " + mend;
}

}  // namespace pcaseg
