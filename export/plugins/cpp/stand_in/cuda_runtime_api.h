// All that TensorRT's headers want of the CUDA runtime: the names of two handles.
#pragma once
typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
