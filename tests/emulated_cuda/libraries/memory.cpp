// Device memory: blocks full of NaN between fences, copies, fills.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>

#include "gpu.h"

namespace gpu {

std::recursive_mutex lock;
Counts counts;
static std::map<uintptr_t, Block> blocks;  // by address
static std::string pending;                // a fault that waits for a call that can report it

// NaN in every type of floats, for who reads there, and no number that a kernel writes.
static char fence(const char* at) { return (uintptr_t)at % 2 ? (char)0xff : (char)0xa5; }

static size_t used(int device) {
    size_t sum = 0;
    for (auto& [_, block] : blocks)
        if (block.device == device) sum += block.size;
    return sum;
}

Block* block_of(const void* address) {
    auto after = blocks.upper_bound((uintptr_t)address);
    if (after == blocks.begin()) return nullptr;
    Block& block = std::prev(after)->second;
    return (char*)address < block.data + block.size ? &block : nullptr;
}

bool fences_hold(const Block& block) {
    for (size_t k = 0; k < FENCE; ++k)
        for (const char* at : {block.data - 1 - k, block.data + block.size + k})
            if (*at != fence(at)) return false;
    return true;
}

void set_fences(const Block& block) {
    for (size_t k = 0; k < FENCE; ++k)
        for (char* at : {block.data - 1 - k, block.data + block.size + k}) *at = fence(at);
}

static int allocate(void** pointer, size_t size, int device) {
    if (device >= 0 && used(device) + size > settings.memory) return OUT_OF_MEMORY;
    void* raw;
    if (posix_memalign(&raw, 512, size + 2 * FENCE)) return OUT_OF_MEMORY;
    Block block = {(char*)raw + FENCE, size, device};
    set_fences(block);
    memset(block.data, 0xff, size);
    blocks[(uintptr_t)block.data] = block;
    *pointer = block.data;
    if (device >= 0) {
        ++counts.allocations;
        counts.bytes += size;
        if (counts.bytes > counts.most_bytes) counts.most_bytes = counts.bytes;
    }
    return OK;
}

static int release(void* pointer) {
    if (!pointer) return OK;
    auto found = blocks.find((uintptr_t)pointer);
    if (found == blocks.end()) return INVALID_VALUE;
    finish_all();
    Block block = found->second;
    if (!fences_hold(block) && pending.empty()) pending = "something was written beside a block of memory";
    if (block.device >= 0) counts.bytes -= block.size;
    blocks.erase(found);
    memset(block.data, 0xff, block.size);  // whoever holds the address reads NaN
    free(block.data - FENCE);
    return OK;
}

int sticky() {
    if (pending.empty()) return OK;
    std::string message;
    message.swap(pending);
    return fault(message);
}

// A pointer and its size lie in one live block, or in host memory that is no block.
static bool whole(const void* address, size_t size) {
    Block* block = block_of(address);
    return !block || (const char*)address + size <= block->data + block->size;
}

static int copy(void* to, const void* from, size_t size) {
    if (!whole(to, size) || !whole(from, size)) return INVALID_VALUE;
    memmove(to, from, size);
    return OK;
}

static bool pageable(const void* address) { return !block_of(address); }

static int copy_in(void* stream, void* to, const void* from, size_t size) {
    bool host = pageable(to) || pageable(from);
    if (host)
        if (int error = no_capture(stream)) return error;  // the host waits for the copy
    if (pageable(to) && !pageable(from)) ++counts.waits;   // what is read must have been computed
    int error = enqueue(stream, [=] { return copy(to, from, size); }, &counts.copies);
    if (host) finish(stream);
    return error;
}

}  // namespace gpu

using namespace gpu;
using Locked = std::lock_guard<std::recursive_mutex>;

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t size) {
    Locked _(lock);
    if (int error = allocation_allowed()) return (cudaError_t)error;
    return (cudaError_t)allocate(pointer, size, current);
}
cudaError_t cudaMallocAsync(void** pointer, size_t size, cudaStream_t) { return cudaMalloc(pointer, size); }
cudaError_t cudaFree(void* pointer) {
    Locked _(lock);
    if (int error = allocation_allowed()) return (cudaError_t)error;
    return (cudaError_t)release(pointer);
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }
cudaError_t cudaHostAlloc(void** pointer, size_t size, unsigned) {
    Locked _(lock);
    return (cudaError_t)allocate(pointer, size, -1);
}
cudaError_t cudaFreeHost(void* pointer) {
    Locked _(lock);
    return (cudaError_t)release(pointer);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    Locked _(lock);
    *total = settings.memory;
    *free = settings.memory - used(current);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
    Locked _(lock);
    return (cudaError_t)copy_in(stream, to, from, size);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
    Locked _(lock);
    ++counts.waits;
    if (int error = no_capture(nullptr)) return (cudaError_t)error;
    if (int error = sticky()) return (cudaError_t)error;
    ++counts.copies;
    return (cudaError_t)copy(to, from, size);
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, cudaStream_t stream) {
    return cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream);
}
cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t size) {
    return cudaMemcpy(to, from, size, cudaMemcpyDeviceToDevice);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
    Locked _(lock);
    if (!whole(to, size)) return cudaErrorInvalidValue;
    return (cudaError_t)enqueue(stream, [=] { memset(to, value, size); return (int)OK; }, &counts.fills);
}
cudaError_t cudaMemset(void* to, int value, size_t size) { return cudaMemsetAsync(to, value, size, nullptr); }

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* answer, const void* pointer) {
    Locked _(lock);
    memset(answer, 0, sizeof *answer);
    Block* block = block_of(pointer);
    answer->type = !block ? cudaMemoryTypeUnregistered : block->device < 0 ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    answer->device = block && block->device >= 0 ? block->device : -2;
    answer->devicePointer = block ? (void*)pointer : nullptr;
    answer->hostPointer = block && block->device < 0 ? (void*)pointer : nullptr;
    return cudaSuccess;
}

}  // extern "C"
