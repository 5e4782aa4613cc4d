# Finds ONNX Runtime where it comes without a CMake package: the target onnxruntime::onnxruntime.
#
#   ONNXRUNTIME_INCLUDE_DIR   folder of onnxruntime_c_api.h
#   ONNXRUNTIME_LIBRARY       the library itself, libonnxruntime.so or libonnxruntime.so.1.X.Y
#
# The library must lie beside the name that the loader looks for, libonnxruntime.so.1; the wheel's does not.
# The Python wheel has the library, Debian's libonnxruntime-dev the headers, Microsoft's archives both.
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
find_library(ONNXRUNTIME_LIBRARY NAMES onnxruntime libonnxruntime.so.1)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(onnxruntime
  REQUIRED_VARS ONNXRUNTIME_LIBRARY ONNXRUNTIME_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install libonnxruntime-dev, or give -DONNXRUNTIME_LIBRARY and -DONNXRUNTIME_INCLUDE_DIR")

if(onnxruntime_FOUND AND CMAKE_OBJDUMP)
  execute_process(COMMAND "${CMAKE_OBJDUMP}" -p "${ONNXRUNTIME_LIBRARY}" OUTPUT_VARIABLE described ERROR_QUIET)
  get_filename_component(folder "${ONNXRUNTIME_LIBRARY}" DIRECTORY)
  string(REGEX MATCH "SONAME +([^ \n]+)" named "${described}")
  if(named AND NOT EXISTS "${folder}/${CMAKE_MATCH_1}")
    message(FATAL_ERROR "${ONNXRUNTIME_LIBRARY}: the loader looks for it as ${CMAKE_MATCH_1}; "
                        "make a link of that name to it, and give the link as -DONNXRUNTIME_LIBRARY")
  endif()
endif()

if(onnxruntime_FOUND AND NOT TARGET onnxruntime::onnxruntime)
  add_library(onnxruntime::onnxruntime UNKNOWN IMPORTED)
  set_target_properties(onnxruntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION "${ONNXRUNTIME_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${ONNXRUNTIME_INCLUDE_DIR}")
endif()
mark_as_advanced(ONNXRUNTIME_INCLUDE_DIR ONNXRUNTIME_LIBRARY)
