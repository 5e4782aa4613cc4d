#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <algorithm>

#include "backend.h"
#include "error.h"
#include "python_text.h"

namespace pcaseg {
namespace {

constexpr uint32_t oldest_api = 16;  // of ONNX Runtime 1.16; nothing newer is called, so newer headers do no harm

using Names = std::vector<std::string>;

const char* const export_anew = "; export the bundle anew";

std::string version() { return OrtGetApiBase()->GetVersionString(); }

/// ONNX Runtime's log and threads, which a process has once.
Ort::Env& environment() {
  static Ort::Env& once = *[] {
    const OrtApi* api = OrtGetApiBase()->GetApi(oldest_api);
    if (api == nullptr) throw Error(PCASEG_FAILED, "ONNX Runtime " + version() + " is too old; install 1.16 or newer");
    Ort::InitApi(api);
    return new Ort::Env(ORT_LOGGING_LEVEL_WARNING, "pcaseg");  // never freed: other threads may still log at the end
  }();
  return once;
}

/// An error's first line as ONNX Runtime's Python package puts it.
std::string said(const Ort::Exception& error) {
  static const char* const codes[] = {
      "SUCCESS",   "FAIL",           "INVALID_ARGUMENT", "NO_SUCHFILE",     "NO_MODEL",      "ENGINE_ERROR",
      "RUNTIME_EXCEPTION", "INVALID_PROTOBUF", "MODEL_LOADED",  "NOT_IMPLEMENTED", "INVALID_GRAPH", "EP_FAIL",
  };
  const std::string message = error.what();
  const int code = error.GetOrtErrorCode();
  const std::string word = code < int(std::size(codes)) ? codes[code] : "GENERAL ERROR";
  return "[ONNXRuntimeError] : " + std::to_string(code) + " : " + word + " : " + message.substr(0, message.find('\n'));
}

/// A tuple or list of names, as Python writes it.
std::string listed(const Names& names) {
  Names quoted;
  for (const std::string& name : names) quoted.push_back(repr(std::string_view(name)));
  return "(" + join(quoted, ", ") + (names.size() == 1 ? ",)" : ")");
}

/// Lengths of a graph's input: numbers, names of those that are free, and None for what has no name.
Names dimensions(const Ort::ConstTensorTypeAndShapeInfo& info) {
  const Shape lengths = info.GetShape();
  std::vector<const char*> names(lengths.size());
  info.GetSymbolicDimensions(names.data(), names.size());
  Names shown;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const std::string name = names[i];
    shown.push_back(lengths[i] >= 0 ? std::to_string(lengths[i]) : name.empty() ? "None" : repr(std::string_view(name)));
  }
  return shown;
}

/// An output, copied, as float32 or whole numbers; of another type, as neither.
Output copied(const Ort::Value& value) {
  const auto info = value.GetTensorTypeAndShapeInfo();
  const size_t count = info.GetElementCount();
  Output output{info.GetShape(), {}, {}};
  switch (info.GetElementType()) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      output.floats.assign(value.GetTensorData<float>(), value.GetTensorData<float>() + count);
      break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      output.integers.assign(value.GetTensorData<int32_t>(), value.GetTensorData<int32_t>() + count);
      break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      output.integers.assign(value.GetTensorData<int64_t>(), value.GetTensorData<int64_t>() + count);
      break;
    default:
      break;
  }
  return output;
}

class OnnxRuntimeBackend : public Backend {
 public:
  OnnxRuntimeBackend(Bundle& bundle, int threads) : Backend(bundle.manifest()) {
    const std::string data = bundle.read(segmenter_name), shown = bundle.shown(segmenter_name);
    memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::SessionOptions options;
    if (threads > 0) options.SetIntraOpNumThreads(threads);
    try {
      session_ = Ort::Session(environment_, data.data(), data.size(), options);
    } catch (const Ort::Exception& error) {
      throw Error(PCASEG_BAD_BUNDLE, shown + ": ONNX Runtime " + version() + " refuses the graph (" + said(error) +
                                         "); export the bundle anew or use the version that the manifest names");
    }
    check_names(shown);
    check_sizes(shown);
  }

  std::string name() const override { return "onnxruntime-cpu"; }

 protected:
  std::vector<Output> run(const ImageInput& image, const Vocabulary& vocabulary) override {
    const char* const inputs[] = {"image", "text"};
    std::vector<const char*> outputs;
    const Names names = manifest_.outputs();
    for (const std::string& name : names) outputs.push_back(name.c_str());
    Ort::Value values[] = {image.frames ? tensor(image.frames, image.shape) : tensor(image.windows, image.shape),
                           tensor(vocabulary.embeddings.data(), {vocabulary.rows(), vocabulary.width})};
    std::vector<Output> found;
    try {
      for (const Ort::Value& value : session_.Run(Ort::RunOptions(), inputs, values, 2, outputs.data(), outputs.size()))
        found.push_back(copied(value));
    } catch (const Ort::Exception& error) {
      throw Error(PCASEG_FAILED, std::string(segmenter_name) + ": ONNX Runtime failed (" + said(error) + ")" + export_anew);
    }
    return found;
  }

 private:
  template <class Value>
  Ort::Value tensor(const Value* values, const Shape& shape) const {
    size_t count = 1;
    for (int64_t length : shape) count *= size_t(length);
    return Ort::Value::CreateTensor<Value>(memory_, const_cast<Value*>(values), count, shape.data(), shape.size());
  }

  /// The graph's inputs and outputs against the bundle's.
  void check_names(const std::string& shown) const {
    const Ort::AllocatorWithDefaultOptions allocator;
    Names inputs, outputs;
    for (size_t i = 0; i < session_.GetInputCount(); ++i) inputs.push_back(session_.GetInputNameAllocated(i, allocator).get());
    for (size_t i = 0; i < session_.GetOutputCount(); ++i) outputs.push_back(session_.GetOutputNameAllocated(i, allocator).get());
    std::sort(inputs.begin(), inputs.end());
    const Names wanted{"image", "text"};
    if (inputs != wanted || outputs != manifest_.outputs())
      throw Error(PCASEG_BAD_BUNDLE, shown + ": the graph maps " + listed(inputs) + " to " + listed(outputs) + ", not " +
                                         listed(wanted) + " to " + listed(manifest_.outputs()) + export_anew);
  }

  /// The manifest's sizes against the graph's.
  void check_sizes(const std::string& shown) const {
    const std::string side = std::to_string(manifest_.size_px);
    Names image{"3", side, side};
    if (manifest_.is_labels) image = {"'H'", "'W'", "3"};
    if (manifest_.image_size)
      image = {std::to_string(manifest_.image_size->first), std::to_string(manifest_.image_size->second), "3"};
    const Ort::AllocatorWithDefaultOptions allocator;
    for (const auto& [name, wanted] : {std::pair("image", image), std::pair("text", Names{std::to_string(manifest_.embed_dim)})}) {
      for (size_t i = 0; i < session_.GetInputCount(); ++i) {
        if (std::string(session_.GetInputNameAllocated(i, allocator).get()) != name) continue;
        const Ort::TypeInfo type = session_.GetInputTypeInfo(i);
        const Names found = dimensions(type.GetTensorTypeAndShapeInfo());
        if (found.empty() || Names(found.begin() + 1, found.end()) != wanted)
          throw Error(PCASEG_BAD_BUNDLE, shown + ": " + name + " has the shape [" + join(found, ", ") +
                                             "], but the manifest says [" + join(wanted, ", ") +
                                             "] behind the first axis" + export_anew);
      }
    }
  }

  Ort::Env& environment_ = environment();  // first: without it not even an empty session can be destroyed
  Ort::MemoryInfo memory_{nullptr};
  Ort::Session session_{nullptr};
};

}  // namespace

std::unique_ptr<Backend> open_onnxruntime(Bundle& bundle, int threads) {
  return std::make_unique<OnnxRuntimeBackend>(bundle, threads);
}

}  // namespace pcaseg
