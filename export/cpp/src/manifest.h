// Manifests of bundles: `manifest.json`, checked field by field, as `pcaseg.runtime.manifest` does it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pcaseg {

constexpr int64_t most_classes = 65535;  // of a vocabulary: labels have 16 bits
constexpr int64_t most_indexed = 4096;   // of a graph of labels with a shortlist
constexpr int64_t most_kept = 256;       // that a graph aggregates, where it has no shortlist

/// The sliding-window protocol: the image resized to `image_px`, windows of `window_px` at `stride_px`.
struct Sliding {
  int64_t image_px, window_px, stride_px;

  /// (top, left) of every window, row by row.
  std::vector<std::pair<int64_t, int64_t>> origins() const;
};

struct FileEntry {
  std::string name, sha256;
  int64_t bytes;
};

/// What the runtime uses of a manifest; the rest is checked and left.
struct Manifest {
  bool is_labels;                       // what the graph ends in: labels, or logits
  std::optional<std::string> strategy;  // that a graph of labels holds
  std::optional<std::pair<int64_t, int64_t>> image_size;  // (height, width) that it is fixed to
  int64_t size_px;                      // side of the network's input
  Sliding sliding;
  int64_t embed_dim;
  std::string encoder_sha256, precision;  // `float32` or `float16`
  std::optional<int64_t> shortlist;
  std::vector<FileEntry> files;

  /// The entry of a file, or null.
  const FileEntry* find(const std::string& name) const;

  /// Names of the graph's outputs.
  std::vector<std::string> outputs() const;
};

/// Reads a manifest; `source` is what the messages call it.
/// Throws Error(PCASEG_BAD_BUNDLE): not JSON, another schema version, or a field is missing, ill-typed or out of range.
Manifest read_manifest(const std::string& text, const std::string& source);

/// Refuses a file name that leads out of the bundle, or means different files on different systems.
void check_file_name(const std::string& name, const std::string& source);

}  // namespace pcaseg
