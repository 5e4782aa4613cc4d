#include "bundle.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <stdexcept>
#include <system_error>

#include "error.h"
#include "files.h"
#include "python_text.h"

namespace pcaseg {
namespace {

constexpr uint64_t manifest_most_bytes = 4 << 20;
const char* const manifest_name = "manifest.json";
const char* const copy_again = "; copy the bundle again or export it anew";

[[noreturn]] void refuse(const std::string& fault) { throw Error(PCASEG_BAD_BUNDLE, fault + copy_again); }

}  // namespace

std::string sha256_of(const std::string& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &length, EVP_sha256(), nullptr) != 1)
    throw Error(PCASEG_FAILED, "libcrypto: computes no SHA-256; repair its installation");
  std::string text;
  for (unsigned i = 0; i < length; ++i) {
    text += "0123456789abcdef"[digest[i] >> 4];
    text += "0123456789abcdef"[digest[i] & 15];
  }
  return text;
}

Bundle::Bundle(const std::string& path) : path_(plain_path(path)) {
  PathKind kind;
  try {
    kind = kind_of(path_);
  } catch (const std::system_error& reason) {
    throw Error(PCASEG_BAD_BUNDLE, refusal(path_, reason.code().value()));
  }
  if (kind == PathKind::nothing) throw Error(PCASEG_BAD_BUNDLE, path_ + ": no such bundle; check the path");
  if (kind != PathKind::folder) {
    try {
      zip_ = std::make_unique<Zip>(path_);
    } catch (const std::invalid_argument&) {
      refuse(path_ + ": neither a bundle folder nor a zip file");
    } catch (const std::system_error& reason) {
      throw Error(PCASEG_BAD_BUNDLE,
                  path_ + ": cannot be read (" + std::strerror(reason.code().value()) + "); make it readable");
    }
    prefix_ = find_prefix();
  }
  const std::string text = load(manifest_name, manifest_most_bytes);
  manifest_ = read_manifest(text, shown(manifest_name));
  sha256_ = sha256_of(text);
}

std::string Bundle::shown(const std::string& name) const { return join_path(path_, name); }

std::string Bundle::read(const std::string& name) {
  const FileEntry* entry = manifest_.find(name);
  if (entry == nullptr) {
    std::vector<std::string> names;
    for (const FileEntry& file : manifest_.files) names.push_back(file.name);
    const std::string listed = names.empty() ? "none" : join(names, ", ");
    refuse(path_ + ": " + name + " is not one of the bundle's files (" + listed + ")");
  }
  std::string bytes = load(name, uint64_t(entry->bytes));
  if (bytes.size() != uint64_t(entry->bytes) || sha256_of(bytes) != entry->sha256)
    refuse(shown(name) + " differs from the manifest (tampered or half-copied)");
  return bytes;
}

/// Up to `limit + 1` bytes of a file: an impostor is noticed before it fills the memory.
std::string Bundle::load(const std::string& name, uint64_t limit) {
  check_file_name(name, path_);
  const std::string missing =
      name == manifest_name ? " is missing: not a bundle, or half-copied" : " is missing (half-copied)";
  try {
    if (!zip_) return read_file(shown(name), limit + 1);
    if (!zip_->has(prefix_ + name)) refuse(shown(name) + missing);
    return zip_->read(prefix_ + name, limit + 1);
  } catch (const std::system_error& reason) {
    const int number = reason.code().value();
    if (number == ENOENT || number == EISDIR) refuse(shown(name) + missing);
    const std::string place = zip_ ? "" : ": " + repr(shown(name));
    refuse(shown(name) + " cannot be read ([Errno " + std::to_string(number) + "] " + std::strerror(number) + place + ")");
  } catch (const std::invalid_argument& reason) {
    refuse(shown(name) + " cannot be read (" + reason.what() + ")");
  }
}

/// What stands before `manifest.json` in the archive: nothing, or the name of its one folder.
std::string Bundle::find_prefix() const {
  if (zip_->has(manifest_name)) return "";
  std::set<std::string> nested;
  for (const std::string& name : zip_->names()) {
    const std::string folder = name.substr(0, name.find('/') + 1);
    if (std::count(name.begin(), name.end(), '/') == 1 && zip_->has(folder + manifest_name)) nested.insert(folder);
  }
  return nested.size() == 1 ? *nested.begin() : "";
}

}  // namespace pcaseg
