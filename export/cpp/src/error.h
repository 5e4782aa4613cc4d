// The one exception of the library. Its message is one sentence: the file or argument at fault, and the mend.
#pragma once

#include <stdexcept>
#include <string>

#include "pcaseg.h"

namespace pcaseg {

class Error : public std::runtime_error {
 public:
  Error(pcaseg_status status, const std::string& sentence) : std::runtime_error(sentence), status(status) {}

  const pcaseg_status status;
};

}  // namespace pcaseg
