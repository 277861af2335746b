// Modules, kernels and launches of the CUDA driver. A module's image is a library that compile.py has made of its text.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

#include <cstdio>
#include <cstdlib>

#include "../include/grid.h"
#include "gpu.h"

namespace gpu {

using emulated::Launch;

struct Module {
    void* library;
    int device;
};
struct Told {                         // struct Parameter of entry.h
    const char *kind, *name;
    size_t size;
};
struct Parameter {
    enum Kind { VALUE, IN, OUT } kind;
    size_t size;
    std::string name;
};
struct Function {
    Module* module;
    std::string name;
    std::vector<Parameter> parameters;
    int (*run)(Launch*, void**);
    size_t static_shared, most_shared = 49152;
    int most_threads;
};

template <class T> static T symbol(void* library, const std::string& name) { return (T)dlsym(library, name.c_str()); }

static std::vector<Parameter> parsed(const Told* told) {
    std::vector<Parameter> parameters;
    for (; told->kind; ++told) {
        auto kind = *told->kind == 'v' ? Parameter::VALUE : *told->kind == 'i' ? Parameter::IN : Parameter::OUT;
        parameters.push_back({kind, told->size, told->name});
    }
    return parameters;
}

// The memory of one launch: every pointer leads into live memory of the kernel's device, what is const stays as it was,
// and nothing is written beside the blocks.
class Watch {
  public:
    Watch(const Function& function, void** arguments) : function_(function) {
        for (size_t k = 0; k < function.parameters.size(); ++k) {
            const Parameter& parameter = function.parameters[k];
            void* pointer = parameter.kind == Parameter::VALUE ? nullptr : *(void**)arguments[k];
            if (!pointer) continue;
            Block* block = block_of(pointer);
            if (!block) {
                wrong_ = parameter.name + " points to no live memory of a device";
                return;
            }
            if (block->device >= 0 && block->device != function.module->device && !settings.peers) {
                wrong_ = parameter.name + " lives on device " + std::to_string(block->device) + ", the kernel on device " +
                         std::to_string(function.module->device);
                return;
            }
            Seen& seen = blocks_[block->data];
            seen.block = *block;
            seen.name = parameter.name;
            seen.written = seen.written || parameter.kind == Parameter::OUT;
        }
        for (auto& [data, seen] : blocks_)
            if (!seen.written) seen.before.assign(data, data + seen.block.size);
    }
    const std::string& before() const { return wrong_; }
    // What is found is mended, so that the next launch finds it whole.
    std::string after() const {
        std::string wrong;
        for (auto& [data, seen] : blocks_) {
            if (!seen.written && memcmp(data, seen.before.data(), seen.block.size)) {
                memcpy(data, seen.before.data(), seen.block.size);
                wrong = "wrote to the memory of " + seen.name + ", which is const";
            }
            if (!fences_hold(seen.block)) {
                set_fences(seen.block);
                wrong = "wrote beside the memory of " + seen.name;
            }
        }
        return wrong;
    }

  private:
    struct Seen {
        Block block;
        std::string name;
        bool written = false;
        std::vector<char> before;
    };
    const Function& function_;
    std::map<char*, Seen> blocks_;
    std::string wrong_;
};

// Flushes denormals while it lives, as -ftz=true does.
class Harsh {
  public:
    Harsh() {
        emulated_harsh = settings.harsh;
#ifdef __SSE__
        state_ = _mm_getcsr();
        if (settings.harsh) _mm_setcsr(state_ | 0x8040);
#endif
    }
    ~Harsh() {
#ifdef __SSE__
        _mm_setcsr(state_);
#endif
    }

  private:
    unsigned state_ = 0;
};

static int run(const Function& function, Launch launch, void** arguments) {
    if (settings.idle) return OK;
    Watch watch(function, arguments);
    if (!watch.before().empty()) return fault(function.name + ": " + watch.before());
    launch.seed = next_seed();
    bool ended;
    {
        Harsh _;
        ended = function.run(&launch, arguments);
    }
    if (!ended) return fault(function.name + ": " + launch.message);
    std::string wrong = watch.after();
    return wrong.empty() ? OK : fault(function.name + ": " + wrong);
}

// What the driver refuses before anything runs.
static int refused(const Function& function, const Launch& launch) {
    uint64_t threads = 1, blocks = 1;
    const uint64_t most_blocks[] = {2147483647, 65535, 65535}, most_threads[] = {1024, 1024, 64};
    for (int k = 0; k < 3; ++k) {
        if (!launch.grid[k] || launch.grid[k] > most_blocks[k]) return INVALID_VALUE;
        if (!launch.block[k] || launch.block[k] > most_threads[k]) return INVALID_VALUE;
        threads *= launch.block[k];
        blocks *= launch.grid[k];
    }
    if (threads > (uint64_t)function.most_threads) return INVALID_VALUE;
    if (launch.shared + function.static_shared > function.most_shared) return INVALID_VALUE;
    if (function.module->device != current) return INVALID_HANDLE;
    if (launch.cooperative && blocks > (uint64_t)settings.multiprocessors * (2048 / ((threads + 31) / 32 * 32)))
        return COOPERATIVE_LAUNCH_TOO_LARGE;
    return OK;
}

static int launched(const Function& function, const Launch& launch, void* stream, void** arguments) {
    if (int error = refused(function, launch)) return error;
    if (idle(stream, &counts.launches)) return OK;
    // A graph's node keeps the arguments' values.
    std::vector<std::vector<char>> values;
    for (size_t k = 0; k < function.parameters.size(); ++k)
        values.emplace_back((char*)arguments[k], (char*)arguments[k] + function.parameters[k].size);
    auto whole = [&function, launch, values]() mutable {
        std::vector<void*> addresses;
        for (auto& value : values) addresses.push_back(value.data());
        return run(function, launch, addresses.data());
    };
    return enqueue(stream, whole, &counts.launches, true);
}

}  // namespace gpu

using namespace gpu;
using Locked = std::lock_guard<std::recursive_mutex>;

extern "C" {

// The image is the library's path.
int cuModuleLoadData(void** module, const void* image) {
    Locked _(lock);
    if (strncmp((const char*)image, "emulated:", 9)) return INVALID_IMAGE;
    void* library = dlopen((const char*)image + 9, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "emulated CUDA: %s\n", dlerror());
        return INVALID_IMAGE;
    }
    *module = new Module{library, current};
    return OK;
}
int cuModuleUnload(void*) { return OK; }  // a library may still be run by a graph

int cuModuleGetFunction(void** answer, void* handle, const char* name) {
    Locked _(lock);
    Module* module = (Module*)handle;
    std::string entry = name;
    auto run = symbol<int (*)(Launch*, void**)>(module->library, "emulated_launch_" + entry);
    if (!run) return NOT_FOUND;
    Function* function = new Function{module, entry};
    function->run = run;
    function->parameters = parsed(symbol<const Told* (*)()>(module->library, "emulated_parameters_" + entry)());
    function->static_shared = symbol<size_t (*)()>(module->library, "emulated_static_shared")();
    function->most_threads = symbol<int (*)()>(module->library, "emulated_most_threads_" + entry)();
    *answer = function;
    return OK;
}
int cuModuleGetGlobal_v2(void**, size_t*, void*, const char*) { return NOT_FOUND; }

int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** arguments, void**) {
    Locked _(lock);
    return launched(*(Function*)function, {{gx, gy, gz}, {bx, by, bz}, shared, 0, "", 0}, stream, arguments);
}
int cuLaunchCooperativeKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                              unsigned bz, unsigned shared, void* stream, void** arguments) {
    Locked _(lock);
    return launched(*(Function*)function, {{gx, gy, gz}, {bx, by, bz}, shared, 0, "", 1}, stream, arguments);
}

enum { MAX_THREADS, STATIC_SHARED, CONSTANT, LOCAL, REGISTERS, MAX_DYNAMIC_SHARED = 8 };
int cuFuncGetAttribute(int* value, int what, void* handle) {
    const Function& function = *(Function*)handle;
    *value = what == MAX_THREADS          ? function.most_threads
             : what == STATIC_SHARED      ? (int)function.static_shared
             : what == REGISTERS          ? 32  // a processor's compiler cannot know
             : what == MAX_DYNAMIC_SHARED ? (int)(function.most_shared - function.static_shared)
                                          : 0;
    return OK;
}
int cuFuncSetAttribute(void* handle, int what, int value) {
    Function& function = *(Function*)handle;
    if (what != MAX_DYNAMIC_SHARED) return OK;
    if (value < 0 || value + function.static_shared > 232448) return INVALID_VALUE;
    function.most_shared = value + function.static_shared;
    return OK;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* handle, int threads, size_t shared) {
    const Function& function = *(Function*)handle;
    size_t by_threads = 2048 / ((threads + 31) / 32 * 32), all = shared + function.static_shared + 1024;
    size_t by_shared = 233472 / all;
    *blocks = (int)(by_threads < by_shared ? by_threads : by_shared);
    return OK;
}
int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int) {
    *grid = settings.multiprocessors * 8;
    *block = 256;
    return OK;
}

}  // extern "C"
