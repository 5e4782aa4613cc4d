// A CUDA driver that prints what is launched; the caller knows which arguments are pointers.
#include <stdio.h>



int cuModuleLoadData(void** module, void const* image)
{
    *module = (void*) image;
    return ((char const*) image)[0] == '/' ? 0 : 200; /* PTX begins with a comment */
}

int cuModuleGetFunction(void** function, void* module, char const* name)
{
    *function = module;
    printf("function %s\n", name);
    return 0;
}

int cuFuncSetAttribute(void* function, int attribute, int value)
{
    printf("attribute %d %d\n", attribute, value);
    return 0;
}

int cuCtxGetCurrent(void** context)
{
    *context = (void*) 1;
    return 0;
}

int cuCtxGetDevice(int* device)
{
    *device = 0;
    return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int device)
{
    *value = attribute == 75 ? 8 : 7;
    return 0;
}

int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, void* stream, void** parameters, void** extra)
{
    int i;
    printf("launch %u %u %u %u %u %u %u\n", gx, gy, gz, bx, by, bz, shared);
    for (i = 0; i < 17 && parameters[i] != 0; ++i)
    {
        printf("argument %llx\n", *(unsigned long long*) parameters[i]);
    }

    return 0;
}
