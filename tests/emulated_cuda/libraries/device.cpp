// Devices and their limits, versions, names of errors, and what tests set.
#include <cuda_runtime_api.h>

#include <cstdio>

#include "gpu.h"

namespace gpu {

Settings settings;
thread_local int current;
static thread_local std::string last_fault;
static const int VERSION = 13020;

const char* name_of(int error) {
    switch (error) {
        case INVALID_VALUE: return "InvalidValue";
        case OUT_OF_MEMORY: return "MemoryAllocation";
        case NO_DEVICE: return "NoDevice";
        case INVALID_DEVICE: return "InvalidDevice";
        case INVALID_HANDLE: return "InvalidResourceHandle";
        case ILLEGAL_ADDRESS: return "IllegalAddress";
        case LAUNCH_FAILED: return "LaunchFailure";
        case COOPERATIVE_LAUNCH_TOO_LARGE: return "CooperativeLaunchTooLarge";
        case CAPTURE_UNSUPPORTED: return "StreamCaptureUnsupported";
        case CAPTURE_INVALIDATED: return "StreamCaptureInvalidated";
        case CAPTURE_MERGE: return "StreamCaptureMerge";
        case CAPTURE_UNMATCHED: return "StreamCaptureUnmatched";
        case CAPTURE_UNJOINED: return "StreamCaptureUnjoined";
        case CAPTURE_IMPLICIT: return "StreamCaptureImplicit";
        case CAPTURED_EVENT: return "CapturedEvent";
        case 35: return "InsufficientDriver";
        default: return "Unknown";
    }
}

int fault(const std::string& message) {
    last_fault = message;
    return LAUNCH_FAILED;
}

static const char* words_of(int error) {
    if (error == LAUNCH_FAILED) return last_fault.c_str();
    static thread_local char text[64];
    snprintf(text, sizeof text, "%s (the emulated CUDA's error %d)", name_of(error), error);
    return text;
}

// The limits of every CUDA device since compute capability 7.5, a T4's number of multiprocessors, and Hopper's
// shared memory.
static int attribute(int what) {
    switch (what) {
        case cudaDevAttrMaxThreadsPerBlock: return 1024;
        case cudaDevAttrMaxBlockDimX: return 1024;
        case cudaDevAttrMaxBlockDimY: return 1024;
        case cudaDevAttrMaxBlockDimZ: return 64;
        case cudaDevAttrMaxGridDimX: return 2147483647;
        case cudaDevAttrMaxGridDimY: return 65535;
        case cudaDevAttrMaxGridDimZ: return 65535;
        case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 232448;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return 233472;
        case cudaDevAttrWarpSize: return 32;
        case cudaDevAttrMaxRegistersPerBlock: return 65536;
        case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
        case cudaDevAttrMultiProcessorCount: return settings.multiprocessors;
        case cudaDevAttrComputeCapabilityMajor: return settings.compute_capability / 10;
        case cudaDevAttrComputeCapabilityMinor: return settings.compute_capability % 10;
        case cudaDevAttrCooperativeLaunch: return 1;
        case cudaDevAttrUnifiedAddressing: return 1;
        default: return 0;
    }
}

}  // namespace gpu

using namespace gpu;

extern "C" {

Counts* emulated_counts() { return &counts; }
Settings* emulated_settings() { return &settings; }
int emulated_pending() { return sticky(); }
const char* emulated_fault() { return last_fault.c_str(); }

const char* cudaGetErrorName(cudaError_t error) {
    static thread_local char text[80];
    snprintf(text, sizeof text, "cudaError%s", name_of(error));
    return text;
}
const char* cudaGetErrorString(cudaError_t error) { return words_of(error); }
int cuGetErrorName(int error, const char** name) {
    *name = error == INVALID_VALUE    ? "CUDA_ERROR_INVALID_VALUE"
            : error == NOT_FOUND      ? "CUDA_ERROR_NOT_FOUND"
            : error == INVALID_HANDLE ? "CUDA_ERROR_INVALID_HANDLE"
            : error == LAUNCH_FAILED  ? "CUDA_ERROR_LAUNCH_FAILED"
                                      : cudaGetErrorName((cudaError_t)error);
    return OK;
}
int cuGetErrorString(int error, const char** words) { *words = words_of(error); return OK; }
cudaError_t cudaGetLastError() { return cudaSuccess; }

int cuInit(unsigned) { return settings.devices ? OK : NO_DEVICE; }
int cuDriverGetVersion(int* version) { *version = settings.devices ? VERSION : 0; return OK; }
cudaError_t cudaDriverGetVersion(int* version) { *version = settings.devices ? VERSION : 0; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = VERSION; return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
    *count = settings.devices;
    return settings.devices ? cudaSuccess : cudaErrorInsufficientDriver;
}
cudaError_t cudaGetDevice(int* device) { *device = current; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
    // An array that outlives its test is freed on its device when none is there any more.
    if (device < 0 || (settings.devices && device >= settings.devices)) return cudaErrorInvalidDevice;
    current = device;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int device) {
    if (device < 0 || device >= settings.devices) return cudaErrorInvalidDevice;
    *value = attribute(what);
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* facts, int device) {
    if (device < 0 || device >= settings.devices) return cudaErrorInvalidDevice;
    memset(facts, 0, sizeof *facts);
    strcpy(facts->name, "emulated CUDA device");
    facts->major = settings.compute_capability / 10;
    facts->minor = settings.compute_capability % 10;
    facts->totalGlobalMem = settings.memory;
    facts->multiProcessorCount = settings.multiprocessors;
    facts->warpSize = 32;
    facts->maxThreadsPerBlock = 1024;
    facts->sharedMemPerBlock = 49152;
    facts->sharedMemPerBlockOptin = 232448;
    facts->regsPerBlock = 65536;
    facts->maxThreadsDim[0] = facts->maxThreadsDim[1] = 1024;
    facts->maxThreadsDim[2] = 64;
    facts->maxGridSize[0] = 2147483647;
    facts->maxGridSize[1] = facts->maxGridSize[2] = 65535;
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = settings.peers; return cudaSuccess; }
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) {
    return settings.peers ? cudaSuccess : cudaErrorPeerAccessUnsupported;
}
cudaError_t cudaDeviceDisablePeerAccess(int) { return cudaSuccess; }

// A context is a device: its number and one more, so that none is null.
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxGetCurrent(void** context) { *context = (void*)(intptr_t)(current + 1); return OK; }
int cuCtxSetCurrent(void* context) { return cudaSetDevice((int)(intptr_t)context - 1); }
int cuCtxGetDevice(int* device) { *device = current; return OK; }
int cuStreamGetCtx(void* stream, void** context) {
    *context = (void*)(intptr_t)((uintptr_t)stream > 2 ? ((Stream*)stream)->device + 1 : current + 1);
    return OK;
}

}  // extern "C"
