// Bundles: a folder `NAME.pcaseg/`, or the same as a zip file, with a manifest that vouches for every file.
#pragma once

#include <memory>
#include <string>

#include "manifest.h"
#include "zip.h"

namespace pcaseg {

/// The SHA-256 of bytes, 64 hexadecimal digits.
std::string sha256_of(const std::string& bytes);

/// A bundle on disk. Nothing of it is parsed before its SHA-256 is checked, the manifest alone excepted.
class Bundle {
 public:
  /// Reads the manifest, nothing else.
  /// Throws Error(PCASEG_BAD_BUNDLE): no bundle at `path`, or its manifest is not usable.
  explicit Bundle(const std::string& path);

  /// The contents of a file that the manifest lists.
  /// Throws Error(PCASEG_BAD_BUNDLE): not listed, missing, or not the bytes that the manifest vouches for.
  std::string read(const std::string& name);

  /// The bundle's path as messages show it.
  const std::string& path() const { return path_; }

  /// The path of a file as messages show it.
  std::string shown(const std::string& name) const;

  const Manifest& manifest() const { return manifest_; }

  /// SHA-256 of the manifest, and through it of everything in the bundle.
  const std::string& sha256() const { return sha256_; }

 private:
  std::string load(const std::string& name, uint64_t limit);
  std::string find_prefix() const;

  std::string path_, prefix_, sha256_;
  std::unique_ptr<Zip> zip_;  // null for a folder
  Manifest manifest_;
};

}  // namespace pcaseg
