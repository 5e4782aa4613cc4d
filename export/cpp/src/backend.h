// What runs the network of a bundle.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "python_text.h"
#include "windows.h"

namespace pcaseg {

constexpr const char* segmenter_name = "segmenter.onnx";

/// Class names and their embeddings, rows x width: a row for each class, or several for one with synonyms of which the
/// best counts.
struct Vocabulary {
  std::vector<std::string> names;
  std::vector<float> embeddings;
  int64_t width;
  std::string encoder_sha256;
  std::vector<uint16_t> class_of_row;  // ascending; empty where each class has one row
  std::vector<uint16_t> objects;       // of a part its object, else the class itself; empty where there are no parts

  int64_t rows() const { return int64_t(class_of_row.empty() ? names.size() : class_of_row.size()); }
};

/// Logits of windows; where the graph has a shortlist, of the classes that it kept, ascending in each window.
struct WindowLogits {
  Maps maps;
  std::vector<int64_t> kept;  // windows x maps.classes; empty where the graph has no shortlist
};

/// The graph's input `image`: windows of float32 or frames of bytes, the other null.
struct ImageInput {
  const float* windows;
  const uint8_t* frames;
  Shape shape;
};

/// An output of the graph: float32 or whole numbers, the other empty.
struct Output {
  Shape shape;
  std::vector<float> floats;
  std::vector<int64_t> integers;
};

/// Runs the network, and checks what comes out of it against what went in.
class Backend {
 public:
  explicit Backend(const Manifest& manifest) : manifest_(manifest) {}
  virtual ~Backend() = default;

  /// Runs a graph of logits on `count` windows, each 3 x R x R float32.
  WindowLogits logits(const float* windows, int64_t count, const Vocabulary& vocabulary);

  /// Runs a graph of labels on `count` packed frames, each height x width x 3 bytes; labels are rows of the vocabulary.
  void labels(const uint8_t* frames, int64_t count, int64_t height, int64_t width, const Vocabulary& vocabulary,
              uint16_t* labels, float* confidence);

  /// What messages call it.
  virtual std::string name() const = 0;

 protected:
  /// The graph's outputs, in the manifest's order.
  virtual std::vector<Output> run(const ImageInput& image, const Vocabulary& vocabulary) = 0;

  const Manifest manifest_;
};

/// Opens the segmenter of a bundle. `threads` is 0 for the library's choice.
/// Throws Error: an unknown backend, or a graph that is refused.
std::unique_ptr<Backend> open_backend(const std::string& name, Bundle& bundle, int threads);

/// ONNX Runtime on the CPU.
std::unique_ptr<Backend> open_onnxruntime(Bundle& bundle, int threads);

/// TensorRT on an NVIDIA GPU, with engines of `pcaseg build` in the bundle's folder.
std::unique_ptr<Backend> open_tensorrt(Bundle& bundle);

}  // namespace pcaseg
