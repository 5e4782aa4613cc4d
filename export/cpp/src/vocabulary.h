// Vocabulary files: class names with their text embeddings, as `pcaseg vocab` writes them.
#pragma once

#include <string>

#include "backend.h"

namespace pcaseg {

/// Reads a `.safetensors` vocabulary.
/// Throws Error(PCASEG_BAD_VOCABULARY): missing, damaged, of another kind or version, or no valid vocabulary.
Vocabulary load_vocabulary(const std::string& path);

/// Checks names and embeddings against each other. Names are not read as the text tower reads them: `pcaseg vocab`
/// did that when it made the embeddings.
void check_vocabulary(const Vocabulary& vocabulary);

/// Refuses a vocabulary of another text encoder than the bundle's; `source` is what the message calls it.
void check_fits(const Vocabulary& vocabulary, const Manifest& manifest, const std::string& source);

}  // namespace pcaseg
