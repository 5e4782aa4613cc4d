// A CUDA runtime and a TensorRT of which the tests need that they can be linked: there is a GPU where GPUS is 1, and
// TensorRT starts, but nothing runs.
#include <cstdlib>
#include <cstring>

#include "cuda_runtime_api.h"

namespace {

struct Runtime {
  virtual ~Runtime() = default;  // all that is called of it
  void* memory[4] = {};
};

bool has_gpu() {
  const char* gpus = std::getenv("GPUS");
  return gpus != nullptr && std::strcmp(gpus, "1") == 0;
}

}  // namespace

extern "C" {

void* createInferRuntime_INTERNAL(void*, int) noexcept { return new Runtime; }

const char* cudaGetErrorString(cudaError_t code) { return code == cudaSuccess ? "no error" : "no driver"; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = has_gpu();
  return has_gpu() ? cudaSuccess : cudaErrorInsufficientDriver;
}

cudaError_t cudaMalloc(void**, size_t) { return cudaErrorInsufficientDriver; }
cudaError_t cudaFree(void*) { return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t) { return cudaErrorInsufficientDriver; }
cudaError_t cudaStreamCreate(cudaStream_t*) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
}
