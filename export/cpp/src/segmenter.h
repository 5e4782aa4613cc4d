// A bundle that is open, and the vocabulary that its frames are segmented with.
#pragma once

#include <memory>
#include <string>

#include "backend.h"

namespace pcaseg {

class Segmenter {
 public:
  /// Opens a bundle. Throws Error: an option outside its choices, or what is wrong with the bundle.
  Segmenter(const std::string& path, const pcaseg_options& options);

  /// Chooses the classes of the frames to come. On an error the former vocabulary stays.
  void set_vocabulary(Vocabulary vocabulary, const std::string& source);

  const Vocabulary& vocabulary() const { return vocabulary_; }

  const std::string& bundle_sha256() const { return bundle_.sha256(); }

  /// Segments frames of one size; results follow each other. `confidence` may be null.
  pcaseg_timings segment(const pcaseg_frame* frames, size_t count, uint16_t* labels, float* confidence);

 private:
  void check_frames(const pcaseg_frame* frames, size_t count) const;
  void run_labels(const pcaseg_frame* frames, size_t count, uint16_t* labels, float* confidence);
  void run_windows(const pcaseg_frame* frames, size_t count, uint16_t* labels, float* confidence, pcaseg_timings& times);
  WindowLogits all_logits(const std::vector<float>& inputs, int64_t windows);
  void check_finite(const float* values, size_t count) const;

  Bundle bundle_;
  Strategy strategy_;
  int64_t window_batch_;
  std::unique_ptr<Backend> backend_;
  Vocabulary vocabulary_{};
};

}  // namespace pcaseg
