// Runs every thread of a launch on the processor, in random order.
//
// A fibre (a stack of its own) runs one thread after another, as a plain loop. A thread that comes to a barrier
// leaves its fibre waiting there, and another fibre goes on with the threads that have not begun. When none is
// left to begin, all those that wait go on, in a new order. A kernel without barriers never needs a second fibre.
#pragma once

namespace emulated {

struct Launch {
    unsigned grid[3], block[3];
    size_t shared;       // bytes of dynamic shared memory
    uint64_t seed;       // of the order of blocks and threads
    char message[256];   // out: what went wrong
};

struct Fibre {
    char* stack = nullptr;
    ucontext_t start;
    jmp_buf at;          // where it waits; _setjmp is swapcontext without its two system calls
    bool begun = false;
    uint3 thread;
    int line;            // of the barrier it waits at
};

const size_t STACK = 64 << 10, LARGEST_SHARED = 228 << 10, SHARED_FENCE = 1024, MOST_BARRIERS = 1 << 20;
alignas(128) static char dynamic_shared[LARGEST_SHARED + SHARED_FENCE];

static jmp_buf scheduler;
static Fibre* running;
static std::vector<Fibre*> idle, waiting;
static std::vector<unsigned> order;  // of the block's threads
static size_t next_thread, finished;
static void (*call_kernel)();

inline uint64_t random_bits(uint64_t& state) {  // SplitMix64, Steele, Lea & Flood 2014
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

template <class T> void shuffle(std::vector<T>& items, uint64_t& seed) {
    for (size_t k = items.size(); k > 1; --k) std::swap(items[k - 1], items[random_bits(seed) % k]);
}

inline uint3 unravel(uint64_t k, const unsigned* size) {
    return {(unsigned)(k % size[0]), (unsigned)(k / size[0] % size[1]), (unsigned)(k / size[0] / size[1])};
}

__attribute__((noinline)) static void barrier(int line) {
    Fibre* self = running;
    self->thread = threadIdx;
    self->line = line;
    waiting.push_back(self);
    if (!_setjmp(self->at)) _longjmp(scheduler, 1);
    threadIdx = self->thread;
}

static void run_threads() {  // what a fibre does
    for (;;) {
        while (next_thread < order.size()) {
            threadIdx = unravel(order[next_thread++], &blockDim.x);
            call_kernel();
            ++finished;
        }
        idle.push_back(running);
        if (!_setjmp(running->at)) _longjmp(scheduler, 1);
    }
}

__attribute__((noinline)) static void resume(Fibre* fibre) {  // until it waits or is idle
    running = fibre;
    if (_setjmp(scheduler)) return;
    if (fibre->begun) _longjmp(fibre->at, 1);
    fibre->begun = true;
    setcontext(&fibre->start);
}

static Fibre* fresh_fibre() {
    if (!idle.empty()) {
        Fibre* fibre = idle.back();
        idle.pop_back();
        return fibre;
    }
    Fibre* fibre = new Fibre;
    void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) return nullptr;
    fibre->stack = (char*)stack;
    getcontext(&fibre->start);
    fibre->start.uc_stack.ss_sp = stack;
    fibre->start.uc_stack.ss_size = STACK;
    makecontext(&fibre->start, run_threads, 0);
    return fibre;
}

static void forget_waiting() {  // threads that will never go on
    for (Fibre* fibre : waiting) {
        munmap(fibre->stack, STACK);
        delete fibre;
    }
    waiting.clear();
}

static bool diverged(Launch& launch) {
    if (finished) {
        snprintf(launch.message, sizeof launch.message, "%zu threads wait at the barrier in line %d, %zu have ended",
                 waiting.size(), waiting[0]->line, finished);
        return true;
    }
    for (Fibre* fibre : waiting)
        if (fibre->line != waiting[0]->line) {
            snprintf(launch.message, sizeof launch.message, "threads wait at different barriers, in lines %d and %d",
                     waiting[0]->line, fibre->line);
            return true;
        }
    return false;
}

static bool run_block(Launch& launch, uint64_t& seed) {
    shuffle(order, seed);
    next_thread = finished = 0;
    while (next_thread < order.size()) {
        Fibre* fibre = fresh_fibre();
        if (!fibre) {
            strcpy(launch.message, "no memory for another fibre");
            return false;
        }
        resume(fibre);
    }
    for (size_t barriers = 0; !waiting.empty(); ++barriers) {
        if (diverged(launch)) return false;
        if (barriers == MOST_BARRIERS) {
            strcpy(launch.message, "over a million barriers: the kernel does not end");
            return false;
        }
        std::vector<Fibre*> batch;
        batch.swap(waiting);
        shuffle(batch, seed);
        for (Fibre* fibre : batch) resume(fibre);
    }
    return true;
}

// Shared memory holds NaN when a block begins, as new memory does; beyond its end stand bytes to be found again.
// The linker makes these two symbols around the section that compile.py puts __shared__ variables in.
extern "C" char __start_emulated_shared[] __attribute__((weak)), __stop_emulated_shared[] __attribute__((weak));

static size_t static_shared() { return __start_emulated_shared ? __stop_emulated_shared - __start_emulated_shared : 0; }

static bool run_grid(Launch& launch) {
    uint64_t seed = launch.seed;
    memcpy(&blockDim, launch.block, sizeof blockDim);
    memcpy(&gridDim, launch.grid, sizeof gridDim);
    order.resize((size_t)blockDim.x * blockDim.y * blockDim.z);
    for (size_t k = 0; k < order.size(); ++k) order[k] = k;
    std::vector<uint64_t> blocks((uint64_t)gridDim.x * gridDim.y * gridDim.z);
    for (size_t k = 0; k < blocks.size(); ++k) blocks[k] = k;
    shuffle(blocks, seed);
    for (uint64_t block : blocks) {
        blockIdx = unravel(block, launch.grid);
        memset(dynamic_shared, 0xff, launch.shared + SHARED_FENCE);
        if (static_shared()) memset(__start_emulated_shared, 0xff, static_shared());
        if (!run_block(launch, seed)) {
            forget_waiting();
            return false;
        }
        for (size_t k = 0; k < SHARED_FENCE; ++k)
            if (dynamic_shared[launch.shared + k] != (char)0xff) {
                snprintf(launch.message, sizeof launch.message,
                         "wrote %zu bytes beyond the %zu bytes of dynamic shared memory", k, launch.shared);
                return false;
            }
    }
    return true;
}

// -- a kernel's signature, for the check of its arguments ---------------------------------------------------------
template <class T> struct TypeName { static const char* get() { return "?"; } };
#define EMULATED_NAME(type, name) \
    template <> struct TypeName<type> { static const char* get() { return name; } };
EMULATED_NAME(void, "void")
EMULATED_NAME(bool, "bool")
EMULATED_NAME(float, "float32")
EMULATED_NAME(double, "float64")
EMULATED_NAME(char, "int8")
EMULATED_NAME(signed char, "int8")
EMULATED_NAME(unsigned char, "uint8")
EMULATED_NAME(short, "int16")
EMULATED_NAME(unsigned short, "uint16")
EMULATED_NAME(int, "int32")
EMULATED_NAME(unsigned, "uint32")
EMULATED_NAME(long, "int64")
EMULATED_NAME(unsigned long, "uint64")
EMULATED_NAME(long long, "int64")
EMULATED_NAME(unsigned long long, "uint64")

template <class T> struct Parameter { static std::string get() { return TypeName<T>::get(); } };
template <class T> struct Parameter<T*> { static std::string get() { return std::string("out ") + TypeName<T>::get(); } };
template <class T> struct Parameter<const T*> { static std::string get() { return std::string("in ") + TypeName<T>::get(); } };

template <auto kernel, class... A> struct Kernel {
    static inline void** arguments;

    template <size_t... I> static void unpack(std::index_sequence<I...>) { kernel(*(A*)arguments[I]...); }
    static void call() { unpack(std::index_sequence_for<A...>()); }

    static int launch(Launch& launch, void** args) {
        arguments = args;
        call_kernel = call;
        return run_grid(launch);
    }
    static const char* parameters() {
        static std::string text = ((Parameter<A>::get() + ";") + ... + "");
        return text.c_str();
    }
};
template <auto kernel> struct Entry;
template <class... A, void (*kernel)(A...)> struct Entry<kernel> : Kernel<kernel, A...> {};

}  // namespace emulated
