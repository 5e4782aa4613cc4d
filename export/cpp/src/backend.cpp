#include "backend.h"

#include "error.h"
#include "python_text.h"

namespace pcaseg {

std::unique_ptr<Backend> open_backend(const std::string& name, Bundle& bundle, int threads) {
  if (name == "onnxruntime") return open_onnxruntime(bundle, threads);
  throw Error(PCASEG_BAD_ARGUMENT, "backend=" + repr(std::string_view(name)) + ": choose one of onnxruntime");
}

}  // namespace pcaseg
