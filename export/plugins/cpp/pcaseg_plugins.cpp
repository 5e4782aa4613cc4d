// Triton kernels as TensorRT plugins: IPluginV2DynamicExt for TensorRT 8.5 and 8.6, IPluginV3 for 10 and newer.

#include "core.h"

#if NV_TENSORRT_MAJOR < 10
#include "plugin_v2.h"
#else
#include "plugin_v3.h"
#endif

namespace pcaseg
{
static_assert(sizeof(descriptions) / sizeof(descriptions[0]) == 3, "register every plugin below");

using Creator0 = Creator<0>;
using Creator1 = Creator<1>;
using Creator2 = Creator<2>;

REGISTER_TENSORRT_PLUGIN(Creator0);
REGISTER_TENSORRT_PLUGIN(Creator1);
REGISTER_TENSORRT_PLUGIN(Creator2);

} // namespace pcaseg
