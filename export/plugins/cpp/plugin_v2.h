// Plugin classes of TensorRT 8.5 and 8.6: IPluginV2DynamicExt.

#pragma once

#include "core.h"

namespace pcaseg
{
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

} // namespace pcaseg
