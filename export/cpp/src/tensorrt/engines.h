// Engines of a bundle: the plans in its folder `engines/` whose sidecars say that they are of its graph.
#pragma once

#include <string>
#include <vector>

#include "../bundle.h"

namespace pcaseg {

/// A plan, and what its sidecar vouches for.
struct StoredEngine {
  std::string path, sha256;
  int64_t bytes;
  bool is_version_compatible;

  /// The plan, once its hash is checked. Throws Error(PCASEG_BAD_BUNDLE): it cannot be read, or is another.
  std::string read() const;
};

/// A bundle's engines of `main` (up to 256 classes) or `large`, by name: in the bundle's precision, with their weights,
/// and without a plugin library. Whether they fit this machine is TensorRT's to say.
/// Throws Error(PCASEG_BAD_BUNDLE): there is none, or a sidecar cannot be read.
std::vector<StoredEngine> find_engines(const Bundle& bundle, const std::string& role);

/// The command that builds an engine of that graph.
std::string build_command(const Bundle& bundle, const std::string& role);

}  // namespace pcaseg
