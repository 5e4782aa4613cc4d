# Finds TensorRT 8.5 or newer and the CUDA runtime: the target TensorRT::runtime.
#
#   TENSORRT_INCLUDE_DIR   folder of NvInferRuntime.h
#   TENSORRT_LIBRARY       libnvinfer.so
#   CUDART_INCLUDE_DIR     folder of cuda_runtime_api.h
#   CUDART_LIBRARY         libcudart.so
find_path(TENSORRT_INCLUDE_DIR NvInferRuntime.h)
find_library(TENSORRT_LIBRARY NAMES nvinfer)
find_path(CUDART_INCLUDE_DIR cuda_runtime_api.h HINTS /usr/local/cuda/include)
find_library(CUDART_LIBRARY NAMES cudart HINTS /usr/local/cuda/lib64)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRT
  REQUIRED_VARS TENSORRT_LIBRARY TENSORRT_INCLUDE_DIR CUDART_LIBRARY CUDART_INCLUDE_DIR)

if(TensorRT_FOUND AND NOT TARGET TensorRT::runtime)
  add_library(TensorRT::cudart UNKNOWN IMPORTED)
  set_target_properties(TensorRT::cudart PROPERTIES
    IMPORTED_LOCATION "${CUDART_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${CUDART_INCLUDE_DIR}")
  add_library(TensorRT::runtime UNKNOWN IMPORTED)
  set_target_properties(TensorRT::runtime PROPERTIES
    IMPORTED_LOCATION "${TENSORRT_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${TENSORRT_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES TensorRT::cudart)
endif()
mark_as_advanced(TENSORRT_INCLUDE_DIR TENSORRT_LIBRARY CUDART_INCLUDE_DIR CUDART_LIBRARY)
