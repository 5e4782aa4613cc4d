#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "../backend.h"
#include "../error.h"
#include "engines.h"

namespace pcaseg {
namespace {

using nvinfer1::OptProfileSelector;

constexpr int int64_type = 8;  // kINT64, which TensorRT 8.5 lacks

/// Keeps TensorRT's last complaint, for messages.
class Log : public nvinfer1::ILogger {
 public:
  void log(Severity severity, char const* message) noexcept override {
    if (severity <= Severity::kERROR) last_ = message;
  }

  std::string last() const { return last_.empty() ? "no reason given" : last_.substr(0, last_.find('\n')); }

 private:
  std::string last_;
};

void check(cudaError_t code, const std::string& what) {
  if (code != cudaSuccess)
    throw Error(PCASEG_FAILED, "tensorrt: CUDA refuses " + what + " (" + cudaGetErrorString(code) +
                                   "); free the GPU's memory or restart the program");
}

/// Memory on the GPU that grows to the largest size that was asked for.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(address_); }

  void* reserve(size_t bytes) {
    if (bytes > size_) {
      check(cudaFree(address_), "to free memory");
      address_ = nullptr;
      size_ = 0;
      check(cudaMalloc(&address_, bytes), "memory of " + std::to_string(bytes) + " bytes");
      size_ = bytes;
    }
    return address_;
  }

 private:
  void* address_ = nullptr;
  size_t size_ = 0;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreate(&stream_), "a stream"); }
  Stream(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }

  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

nvinfer1::Dims dims_of(const Shape& shape) {
  nvinfer1::Dims dims{};
  dims.nbDims = int32_t(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) dims.d[i] = decltype(+dims.d[0])(shape[i]);  // 32 bits wide until TensorRT 10
  return dims;
}

Shape shape_of(const nvinfer1::Dims& dims) { return {dims.d, dims.d + std::max(0, int(dims.nbDims))}; }

size_t elements(const Shape& shape) {
  size_t count = 1;
  for (int64_t length : shape) count *= size_t(std::max<int64_t>(length, 0));
  return count;
}

/// A deserialised engine with one context.
struct Engine {
  std::string path;
  std::unique_ptr<nvinfer1::ICudaEngine> engine;
  std::unique_ptr<nvinfer1::IExecutionContext> context;
  int profile = -1;
  std::map<std::string, DeviceMemory> memory;

  /// Numbers in the largest inputs of a profile; none where it does not cover these shapes.
  std::optional<size_t> reach(int index, const std::map<std::string, Shape>& inputs) const {
    size_t largest = 0;
    for (const auto& [name, shape] : inputs) {
      const Shape low = shape_of(engine->getProfileShape(name.c_str(), index, OptProfileSelector::kMIN));
      const Shape high = shape_of(engine->getProfileShape(name.c_str(), index, OptProfileSelector::kMAX));
      if (low.size() != shape.size() || high.size() != shape.size()) return std::nullopt;
      for (size_t i = 0; i < shape.size(); ++i)
        if (shape[i] < low[i] || shape[i] > high[i]) return std::nullopt;
      largest += elements(high);
    }
    return largest;
  }
};

class TensorRTBackend : public Backend {
 public:
  explicit TensorRTBackend(Bundle& bundle) : Backend(bundle.manifest()), bundle_(bundle) {
    int count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || count == 0)
      throw Error(PCASEG_FAILED, std::string("tensorrt: finds no usable GPU (") + cudaGetErrorString(code) +
                                     "); install NVIDIA's driver, or take the backend onnxruntime");
    stream_.emplace();
    runtime_.reset(nvinfer1::createInferRuntime(log_));
    if (!runtime_)
      throw Error(PCASEG_FAILED, "tensorrt: does not start (" + log_.last() +
                                     "); install the version that the library was built for");
    engines("main");
  }

  std::string name() const override { return manifest_.precision == "float16" ? "tensorrt-fp16" : "tensorrt-fp32"; }

 protected:
  std::vector<Output> run(const ImageInput& image, const Vocabulary& vocabulary) override {
    const Shape text{vocabulary.rows(), vocabulary.width};
    Engine& engine = covering({{"image", image.shape}, {"text", text}});
    upload(engine, "image", image.frames, image.windows, image.shape);
    upload(engine, "text", nullptr, vocabulary.embeddings.data(), text);
    const std::vector<std::string> names = manifest_.outputs();
    std::vector<Output> outputs;
    for (const std::string& name : names) {
      outputs.push_back({shape_of(engine.context->getTensorShape(name.c_str())), {}, {}});
      bind(engine, name, elements(outputs.back().shape) * width_of(engine, name));
    }
    need(engine, engine.context->enqueueV3(*stream_), "to run");
    for (size_t i = 0; i < names.size(); ++i) download(engine, names[i], outputs[i]);
    return outputs;
  }

 private:
  /// Refuses with TensorRT's last complaint where something was not done.
  void need(const Engine& engine, bool done, const std::string& what) const {
    if (!done)
      throw Error(PCASEG_FAILED, engine.path + ": TensorRT refuses " + what + " (" + log_.last() +
                                     "); build the engine anew with pcaseg build");
  }

  /// The engines of a graph that TensorRT takes here, opened once.
  std::vector<std::unique_ptr<Engine>>& engines(const std::string& role) {
    auto& opened = opened_[role];
    if (!opened.empty()) return opened;
    for (const StoredEngine& stored : find_engines(bundle_, role))
      if (auto engine = open(stored)) opened.push_back(std::move(engine));
    if (opened.empty())
      throw Error(PCASEG_BAD_BUNDLE, bundle_.shown("engines") + ": TensorRT takes none of the engines here (" + log_.last() +
                                         "); run on this machine: " + build_command(bundle_, role));
    return opened;
  }

  /// Null where TensorRT refuses the plan, as one of another GPU or version.
  std::unique_ptr<Engine> open(const StoredEngine& stored) {
    const std::string plan = stored.read();
#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR > 5
    runtime_->setEngineHostCodeAllowed(stored.is_version_compatible);  // such plans bring code that runs on the host
#endif
    auto engine = std::make_unique<Engine>();
    engine->path = stored.path;
    engine->engine.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine->engine) return nullptr;
    engine->context.reset(engine->engine->createExecutionContext());
    return engine->context ? std::move(engine) : nullptr;
  }

  /// The engine whose profile covers the shapes and reaches least beyond them, set to it.
  Engine& covering(const std::map<std::string, Shape>& inputs) {
    const int64_t classes = inputs.at("text")[0], kept = manifest_.shortlist.value_or(most_kept);
    const std::string role = classes > kept ? "large" : "main";
    Engine* best = nullptr;
    int profile = 0;
    std::optional<size_t> least;
    for (const auto& engine : engines(role)) {
      for (int i = 0; i < engine->engine->getNbOptimizationProfiles(); ++i) {
        const auto reach = engine->reach(i, inputs);
        if (!reach || (least && *reach >= *least)) continue;
        best = engine.get(), profile = i, least = reach;
      }
    }
    if (best == nullptr)
      throw Error(PCASEG_FAILED, bundle_.shown("engines") + ": no profile covers image " + tuple(inputs.at("image")) +
                                     ", text " + tuple(inputs.at("text")) + "; build one that does: " +
                                     build_command(bundle_, role) + ", or give fewer frames or classes at a time");
    if (best->profile != profile) need(*best, best->context->setOptimizationProfileAsync(profile, *stream_), "the profile");
    best->profile = profile;
    for (const auto& [name, shape] : inputs)
      need(*best, best->context->setInputShape(name.c_str(), dims_of(shape)), "the shape of " + name);
    return *best;
  }

  size_t width_of(const Engine& engine, const std::string& name) const {
    const auto type = engine.engine->getTensorDataType(name.c_str());
    if (type == nvinfer1::DataType::kFLOAT || type == nvinfer1::DataType::kINT32) return 4;
    if (type == nvinfer1::DataType::kUINT8) return 1;
    if (int(type) == int64_type) return 8;
    throw Error(PCASEG_BAD_BUNDLE,
                engine.path + ": " + name + " is of a type that no bundle has; build it anew with pcaseg build");
  }

  void* bind(Engine& engine, const std::string& name, size_t bytes) {
    void* address = engine.memory[name].reserve(std::max<size_t>(bytes, 1));
    need(engine, engine.context->setTensorAddress(name.c_str(), address), "the address of " + name);
    return address;
  }

  /// Sends bytes or float32, bytes as float32 where the engine takes no bytes; both are the caller's until the run's end.
  void upload(Engine& engine, const char* name, const uint8_t* bytes, const float* floats, const Shape& shape) {
    const size_t count = elements(shape);
    const void* data = floats;
    if (bytes != nullptr && width_of(engine, name) == 1) data = bytes;
    if (data == nullptr) {
      widened_.assign(bytes, bytes + count);
      data = widened_.data();
    }
    const size_t size = count * (data == bytes ? 1 : sizeof(float));
    check(cudaMemcpyAsync(bind(engine, name, size), data, size, cudaMemcpyHostToDevice, *stream_), "to take the input");
  }

  void download(Engine& engine, const std::string& name, Output& output) {
    const size_t count = elements(output.shape), width = width_of(engine, name);
    std::vector<char> bytes(count * width);
    const void* address = engine.memory[name].reserve(0);
    check(cudaMemcpyAsync(bytes.data(), address, bytes.size(), cudaMemcpyDeviceToHost, *stream_), "to give the output");
    check(cudaStreamSynchronize(*stream_), "to finish");
    const auto copy = [&](auto& values, auto one) {
      std::vector<decltype(one)> found(count);
      std::memcpy(found.data(), bytes.data(), bytes.size());
      values.assign(found.begin(), found.end());
    };
    if (engine.engine->getTensorDataType(name.c_str()) == nvinfer1::DataType::kFLOAT) copy(output.floats, float());
    else if (width == 4) copy(output.integers, int32_t());
    else if (width == 8) copy(output.integers, int64_t());
  }

  Bundle& bundle_;
  Log log_;
  std::optional<Stream> stream_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::map<std::string, std::vector<std::unique_ptr<Engine>>> opened_;  // goes before the runtime does
  std::vector<float> widened_;
};

}  // namespace

std::unique_ptr<Backend> open_tensorrt(Bundle& bundle) { return std::make_unique<TensorRTBackend>(bundle); }

}  // namespace pcaseg
