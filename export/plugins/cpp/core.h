// Kernels, the CUDA driver that launches them, and the core that plugin classes of every TensorRT version share.
//
// What plugins there are, their shapes and their launch rules come from the generated header. A kernel's PTX is loaded
// through the CUDA driver at its first launch in a context. Errors are return codes: nothing throws through TensorRT.

#pragma once

#include <NvInfer.h>

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace pcaseg
{
constexpr int32_t kMaxInputs = 16;
constexpr int32_t kMaxAttributes = 4;

struct Description
{
    char const* name;
    int32_t inputs;
    int32_t attributes;
    char const* attributeNames[kMaxAttributes];
    bool varies[kMaxInputs + 1]; // of inputs and output: of the plugin's type, or always float
    int32_t rank;                // of the output
    int32_t axes[8][2];          // of each of its axes: the input and its axis that have the length
};

using LaunchRule = int32_t (*)(int32_t const (*dims)[8], int32_t* grid, int32_t* scalars);

struct Kernel
{
    char const* plugin;
    int32_t attributes[kMaxAttributes];
    bool half;
    int32_t arch;
    unsigned char const* ptx;
    char const* entry;
    int32_t threads;
    int32_t sharedBytes;
    LaunchRule launch;
};

#include PCASEG_KERNELS

constexpr char const* kNamespace = "pcaseg";
constexpr char const* kVersion = "1";

// The few calls of the CUDA driver that launching takes, found when they are first needed.
class Driver
{
public:
    static Driver& get()
    {
        static Driver driver;
        return driver;
    }

    // Loads a kernel once for each context and launches it; 0 if it worked.
    int32_t launch(Kernel const& kernel, int32_t const* grid, void** arguments, cudaStream_t stream)
    {
        if (!ready_)
        {
            return -1;
        }
        void* function = find(kernel);
        if (function == nullptr)
        {
            return -1;
        }
        unsigned const x = grid[0], y = grid[1], z = grid[2], threads = kernel.threads, shared = kernel.sharedBytes;
        return launchKernel_(function, x, y, z, threads, 1, 1, shared, stream, arguments, nullptr);
    }

    // Compute capability of the current device as major * 10 + minor; 0 if there is none.
    int32_t arch()
    {
        int device = 0, major = 0, minor = 0;
        if (!ready_ || ctxGetDevice_(&device) || deviceGetAttribute_(&major, 75, device)
            || deviceGetAttribute_(&minor, 76, device))
        {
            return 0;
        }
        return major * 10 + minor;
    }

private:
    Driver()
    {
        void* library = dlopen("libcuda.so.1", RTLD_NOW);
        ready_ = library != nullptr && load(library, "cuModuleLoadData", moduleLoadData_)
            && load(library, "cuModuleGetFunction", moduleGetFunction_)
            && load(library, "cuFuncSetAttribute", funcSetAttribute_) && load(library, "cuLaunchKernel", launchKernel_)
            && load(library, "cuCtxGetCurrent", ctxGetCurrent_) && load(library, "cuCtxGetDevice", ctxGetDevice_)
            && load(library, "cuDeviceGetAttribute", deviceGetAttribute_);
    }

    template <typename F>
    static bool load(void* library, char const* name, F& function)
    {
        function = reinterpret_cast<F>(dlsym(library, name));
        return function != nullptr;
    }

    void* find(Kernel const& kernel)
    {
        void* context = nullptr;
        if (ctxGetCurrent_(&context) || context == nullptr)
        {
            return nullptr;
        }
        std::lock_guard<std::mutex> const guard(mutex_);
        auto const key = std::make_pair(context, &kernel);
        auto const found = functions_.find(key);
        if (found != functions_.end())
        {
            return found->second;
        }
        void* module = nullptr;
        void* function = nullptr;
        if (moduleLoadData_(&module, kernel.ptx) || moduleGetFunction_(&function, module, kernel.entry))
        {
            return nullptr;
        }
        constexpr int kMaxDynamicSharedBytes = 8;
        if (kernel.sharedBytes > 48 * 1024 && funcSetAttribute_(function, kMaxDynamicSharedBytes, kernel.sharedBytes))
        {
            return nullptr;
        }
        functions_[key] = function;
        return function;
    }

    bool ready_ = false;
    std::mutex mutex_;
    std::map<std::pair<void*, Kernel const*>, void*> functions_;
    int (*moduleLoadData_)(void**, void const*) = nullptr;
    int (*moduleGetFunction_)(void**, void*, char const*) = nullptr;
    int (*funcSetAttribute_)(void*, int, int) = nullptr;
    int (*launchKernel_)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, cudaStream_t,
        void**, void**) = nullptr;
    int (*ctxGetCurrent_)(void**) = nullptr;
    int (*ctxGetDevice_)(int*) = nullptr;
    int (*deviceGetAttribute_)(int*, int, int) = nullptr;
};

// What both generations of plugin classes share: attributes, types, shapes and the launch.
class Core
{
public:
    Core(Description const& description, std::array<int32_t, kMaxAttributes> const& attributes)
        : description_(description)
        , attributes_(attributes)
    {
    }

    Description const& description() const
    {
        return description_;
    }

    std::array<int32_t, kMaxAttributes> const& attributes() const
    {
        return attributes_;
    }

    bool supports(int32_t pos, nvinfer1::PluginTensorDesc const& first, nvinfer1::PluginTensorDesc const& desc) const
    {
        if (desc.format != nvinfer1::TensorFormat::kLINEAR)
        {
            return false;
        }
        if (!description_.varies[pos])
        {
            return desc.type == nvinfer1::DataType::kFLOAT;
        }
        bool const known = desc.type == nvinfer1::DataType::kFLOAT || desc.type == nvinfer1::DataType::kHALF;
        return known && desc.type == first.type;
    }

    template <typename Dims>
    void outputDims(Dims const* inputs, Dims& output) const
    {
        output.nbDims = description_.rank;
        for (int32_t i = 0; i < description_.rank; ++i)
        {
            output.d[i] = inputs[description_.axes[i][0]].d[description_.axes[i][1]];
        }
    }

    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputs, void const* const* inputPointers,
        void* const* outputPointers, cudaStream_t stream) const
    {
        int32_t dims[kMaxInputs][8] = {};
        for (int32_t i = 0; i < description_.inputs; ++i)
        {
            for (int32_t axis = 0; axis < std::min<int32_t>(inputs[i].dims.nbDims, 8); ++axis)
            {
                dims[i][axis] = static_cast<int32_t>(inputs[i].dims.d[axis]);
            }
        }
        Kernel const* kernel = find(inputs[0].type == nvinfer1::DataType::kHALF);
        if (kernel == nullptr)
        {
            return -1;
        }
        int32_t grid[3] = {1, 1, 1};
        int32_t scalars[8] = {};
        int32_t const count = kernel->launch(dims, grid, scalars);
        void const* pointers[kMaxInputs + 1];
        void* arguments[kMaxInputs + 1 + 8] = {};
        int32_t position = 0;
        for (int32_t i = 0; i < description_.inputs; ++i)
        {
            pointers[i] = inputPointers[i];
            arguments[position++] = &pointers[i];
        }
        for (int32_t i = 0; i < count; ++i)
        {
            arguments[position++] = &scalars[i];
        }
        pointers[description_.inputs] = outputPointers[0];
        arguments[position++] = &pointers[description_.inputs];
        return Driver::get().launch(*kernel, grid, arguments, stream);
    }

private:
    Kernel const* find(bool half) const
    {
        int32_t const arch = Driver::get().arch();
        for (Kernel const& kernel : kernels)
        {
            if (kernel.arch == arch && kernel.half == half && std::strcmp(kernel.plugin, description_.name) == 0
                && std::equal(attributes_.begin(), attributes_.end(), kernel.attributes))
            {
                return &kernel;
            }
        }
        return nullptr;
    }

    Description const& description_;
    std::array<int32_t, kMaxAttributes> attributes_;
};

// The attributes of a node; false where one is missing.
inline bool readFields(Description const& description, nvinfer1::PluginFieldCollection const* fields,
    std::array<int32_t, kMaxAttributes>& attributes)
{
    attributes.fill(0);
    for (int32_t k = 0; k < description.attributes; ++k)
    {
        bool found = false;
        for (int32_t i = 0; i < fields->nbFields; ++i)
        {
            nvinfer1::PluginField const& field = fields->fields[i];
            if (std::strcmp(field.name, description.attributeNames[k]) == 0 && field.data != nullptr)
            {
                attributes[k] = *static_cast<int32_t const*>(field.data);
                found = true;
            }
        }
        if (!found)
        {
            return false;
        }
    }
    return true;
}

inline std::vector<nvinfer1::PluginField> fieldsOf(Description const& description)
{
    std::vector<nvinfer1::PluginField> fields;
    for (int32_t k = 0; k < description.attributes; ++k)
    {
        fields.emplace_back(description.attributeNames[k], nullptr, nvinfer1::PluginFieldType::kINT32, 1);
    }
    return fields;
}

} // namespace pcaseg
