// Drives the plugin classes over TensorRT's headers alone: creates each plugin from its attributes, runs it, and copies it
// by way of its serialised form. The driver is a stand-in that prints what is launched.

#include <NvInfer.h>

#undef REGISTER_TENSORRT_PLUGIN
#define REGISTER_TENSORRT_PLUGIN(name) static_assert(true, "")

#include PCASEG_SOURCE

#include <cstdio>

using namespace pcaseg;

template <int32_t INDEX>
void drive(int32_t const (*shapes)[8], int32_t const* ranks, int32_t const* values)
{
    Description const& description = descriptions[INDEX];
    std::vector<nvinfer1::PluginField> fields;
    for (int32_t k = 0; k < description.attributes; ++k)
    {
        fields.emplace_back(description.attributeNames[k], &values[k], nvinfer1::PluginFieldType::kINT32, 1);
    }
    nvinfer1::PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
    Creator<INDEX> creator;
    nvinfer1::PluginFieldCollection few{static_cast<int32_t>(fields.size()) - 1, fields.data()};
#if NV_TENSORRT_MAJOR < 10
    auto* first = static_cast<nvinfer1::IPluginV2DynamicExt*>(creator.createPlugin("x", &collection));
    std::vector<char> bytes(first->getSerializationSize());
    first->serialize(bytes.data());
    auto* again = static_cast<nvinfer1::IPluginV2DynamicExt*>(
        creator.deserializePlugin("x", bytes.data(), bytes.size()));
    nvinfer1::IPluginV2DynamicExt* plugin = again->clone();
    bool const refused = creator.createPlugin("x", &few) == nullptr
        && creator.deserializePlugin("x", bytes.data(), bytes.size() - 1) == nullptr;
#else
    auto const phase = nvinfer1::TensorRTPhase::kBUILD;
    auto* first = static_cast<Plugin*>(creator.createPlugin("x", &collection, phase));
    auto* again = static_cast<Plugin*>(creator.createPlugin("x", first->getFieldsToSerialize(), phase));
    auto* plugin = static_cast<Plugin*>(again->clone());
    bool const refused = creator.createPlugin("x", &few, phase) == nullptr;
#endif
    std::vector<nvinfer1::PluginTensorDesc> inputs(description.inputs);
    std::vector<void const*> pointers;
    for (int32_t i = 0; i < description.inputs; ++i)
    {
        inputs[i].dims.nbDims = ranks[i];
        std::copy(shapes[i], shapes[i] + ranks[i], inputs[i].dims.d);
        inputs[i].type = description.varies[i] ? nvinfer1::DataType::kHALF : nvinfer1::DataType::kFLOAT;
        inputs[i].format = nvinfer1::TensorFormat::kLINEAR;
        pointers.push_back(reinterpret_cast<void const*>(static_cast<uintptr_t>(0x1000 * (i + 1))));
    }
    void* output = reinterpret_cast<void*>(static_cast<uintptr_t>(0xf000));
    std::printf("%s %d\n", description.name, refused ? 1 : 0);
    std::fflush(stdout);
    int32_t const code = plugin->enqueue(inputs.data(), nullptr, pointers.data(), &output, nullptr, nullptr);
    std::printf("code %d\n", code);
}

int main()
{
#include PCASEG_SHAPES
    return 0;
}
