// Windows whose graph gives the logits of the classes that it kept, and no other.
#pragma once

#include <vector>

#include "backend.h"

namespace pcaseg {

/// Logits of one frame's windows on classes that all of them share.
struct SharedLogits {
  Maps maps;
  std::vector<uint16_t> classes;  // ascending; empty where the maps are of all classes
};

/// Takes `windows` windows from `first` on; `classes` counts the rows of the vocabulary. Of a shortlist: the classes that
/// some window kept and the first that none did, which stands for all such, with the logit -100 where a window dropped a
/// class.
SharedLogits share_classes(const WindowLogits& logits, int64_t first, int64_t windows, int64_t classes);

}  // namespace pcaseg
