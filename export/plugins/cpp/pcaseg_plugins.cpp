// Triton kernels as TensorRT plugins: IPluginV2DynamicExt for TensorRT 8.5 and 8.6, IPluginV3 for 10 and newer.
//
// What plugins there are, their shapes and their launch rules come from the generated header. A kernel's PTX is loaded
// through the CUDA driver at its first launch in a context. Errors are return codes: nothing throws through TensorRT.

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

#if NV_TENSORRT_MAJOR < 10

class Plugin final : public nvinfer1::IPluginV2DynamicExt
{
public:
    explicit Plugin(Core const& core)
        : core_(core)
    {
    }

    nvinfer1::IPluginV2DynamicExt* clone() const noexcept override
    {
        auto* copy = new Plugin(core_);
        copy->namespace_ = namespace_;
        return copy;
    }

    nvinfer1::DimsExprs getOutputDimensions(int32_t, nvinfer1::DimsExprs const* inputs, int32_t,
        nvinfer1::IExprBuilder&) noexcept override
    {
        nvinfer1::DimsExprs output;
        core_.outputDims(inputs, output);
        return output;
    }

    bool supportsFormatCombination(
        int32_t pos, nvinfer1::PluginTensorDesc const* inOut, int32_t, int32_t) noexcept override
    {
        return core_.supports(pos, inOut[0], inOut[pos]);
    }

    void configurePlugin(nvinfer1::DynamicPluginTensorDesc const*, int32_t, nvinfer1::DynamicPluginTensorDesc const*,
        int32_t) noexcept override
    {
    }

    size_t getWorkspaceSize(nvinfer1::PluginTensorDesc const*, int32_t, nvinfer1::PluginTensorDesc const*,
        int32_t) const noexcept override
    {
        return 0;
    }

    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const*,
        void const* const* inputPointers, void* const* outputPointers, void*, cudaStream_t stream) noexcept override
    {
        return core_.enqueue(inputs, inputPointers, outputPointers, stream);
    }

    nvinfer1::DataType getOutputDataType(int32_t, nvinfer1::DataType const* types, int32_t) const noexcept override
    {
        return types[0];
    }

    char const* getPluginType() const noexcept override
    {
        return core_.description().name;
    }

    char const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    int32_t getNbOutputs() const noexcept override
    {
        return 1;
    }

    int32_t initialize() noexcept override
    {
        return 0;
    }

    void terminate() noexcept override {}

    size_t getSerializationSize() const noexcept override
    {
        return sizeof(int32_t) * kMaxAttributes;
    }

    void serialize(void* buffer) const noexcept override
    {
        std::memcpy(buffer, core_.attributes().data(), getSerializationSize());
    }

    void destroy() noexcept override
    {
        delete this;
    }

    void setPluginNamespace(char const* name) noexcept override
    {
        namespace_ = name;
    }

    char const* getPluginNamespace() const noexcept override
    {
        return namespace_.c_str();
    }

private:
    Core core_;
    std::string namespace_ = kNamespace;
};

template <int32_t INDEX>
class Creator final : public nvinfer1::IPluginCreator
{
public:
    Creator()
        : fields_(fieldsOf(descriptions[INDEX]))
    {
        collection_.nbFields = static_cast<int32_t>(fields_.size());
        collection_.fields = fields_.data();
    }

    char const* getPluginName() const noexcept override
    {
        return descriptions[INDEX].name;
    }

    char const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override
    {
        return &collection_;
    }

    nvinfer1::IPluginV2* createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields) noexcept override
    {
        std::array<int32_t, kMaxAttributes> attributes;
        return readFields(descriptions[INDEX], fields, attributes) ? new Plugin(Core(descriptions[INDEX], attributes))
                                                                   : nullptr;
    }

    nvinfer1::IPluginV2* deserializePlugin(char const*, void const* data, size_t length) noexcept override
    {
        std::array<int32_t, kMaxAttributes> attributes;
        if (length != sizeof(attributes))
        {
            return nullptr;
        }
        std::memcpy(attributes.data(), data, length);
        return new Plugin(Core(descriptions[INDEX], attributes));
    }

    void setPluginNamespace(char const* name) noexcept override
    {
        namespace_ = name;
    }

    char const* getPluginNamespace() const noexcept override
    {
        return namespace_.c_str();
    }

private:
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
    std::string namespace_ = kNamespace;
};

#else

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime
{
public:
    explicit Plugin(Core const& core)
        : core_(core)
    {
        for (int32_t k = 0; k < core_.description().attributes; ++k)
        {
            fields_.emplace_back(
                core_.description().attributeNames[k], &core_.attributes()[k], nvinfer1::PluginFieldType::kINT32, 1);
        }
        collection_.nbFields = static_cast<int32_t>(fields_.size());
        collection_.fields = fields_.data();
    }

    Plugin(Plugin const&) = delete; // fields point into the object
    Plugin& operator=(Plugin const&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override
    {
        switch (type)
        {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    nvinfer1::IPluginV3* clone() noexcept override
    {
        return new Plugin(core_);
    }

    char const* getPluginName() const noexcept override
    {
        return core_.description().name;
    }

    char const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    char const* getPluginNamespace() const noexcept override
    {
        return kNamespace;
    }

    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const*, int32_t,
        nvinfer1::DynamicPluginTensorDesc const*, int32_t) noexcept override
    {
        return 0;
    }

    int32_t getOutputDataTypes(
        nvinfer1::DataType* outputs, int32_t, nvinfer1::DataType const* inputs, int32_t) const noexcept override
    {
        outputs[0] = inputs[0];
        return 0;
    }

    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t, nvinfer1::DimsExprs const*, int32_t,
        nvinfer1::DimsExprs* outputs, int32_t, nvinfer1::IExprBuilder&) noexcept override
    {
        core_.outputDims(inputs, outputs[0]);
        return 0;
    }

    bool supportsFormatCombination(
        int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut, int32_t, int32_t) noexcept override
    {
        return core_.supports(pos, inOut[0].desc, inOut[pos].desc);
    }

    int32_t getNbOutputs() const noexcept override
    {
        return 1;
    }

    int32_t onShapeChange(nvinfer1::PluginTensorDesc const*, int32_t, nvinfer1::PluginTensorDesc const*,
        int32_t) noexcept override
    {
        return 0;
    }

    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const*,
        void const* const* inputPointers, void* const* outputPointers, void*, cudaStream_t stream) noexcept override
    {
        return core_.enqueue(inputs, inputPointers, outputPointers, stream);
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override
    {
        return clone();
    }

    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override
    {
        return &collection_;
    }

private:
    Core core_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

template <int32_t INDEX>
class Creator final : public nvinfer1::IPluginCreatorV3One
{
public:
    Creator()
        : fields_(fieldsOf(descriptions[INDEX]))
    {
        collection_.nbFields = static_cast<int32_t>(fields_.size());
        collection_.fields = fields_.data();
    }

    nvinfer1::IPluginV3* createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields,
        nvinfer1::TensorRTPhase) noexcept override
    {
        std::array<int32_t, kMaxAttributes> attributes;
        return readFields(descriptions[INDEX], fields, attributes) ? new Plugin(Core(descriptions[INDEX], attributes))
                                                                   : nullptr;
    }

    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override
    {
        return &collection_;
    }

    char const* getPluginName() const noexcept override
    {
        return descriptions[INDEX].name;
    }

    char const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    char const* getPluginNamespace() const noexcept override
    {
        return kNamespace;
    }

private:
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

#endif

static_assert(sizeof(descriptions) / sizeof(descriptions[0]) == 3, "register every plugin below");

using Creator0 = Creator<0>;
using Creator1 = Creator<1>;
using Creator2 = Creator<2>;

REGISTER_TENSORRT_PLUGIN(Creator0);
REGISTER_TENSORRT_PLUGIN(Creator1);
REGISTER_TENSORRT_PLUGIN(Creator2);

} // namespace pcaseg
