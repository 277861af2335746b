// Runs every thread of a launch on the processor, in random order.
//
// A fibre (a stack of its own) runs one thread after another, as a plain loop. A thread that has to wait leaves its
// fibre there, and another fibre goes on with the threads that have not begun. A kernel without barriers never needs a
// second fibre. Threads wait for their block (barrier), for their warp (warps.h), or look again later (pause). After a
// barrier whole warps or single threads go on in a new order, some long before the others.
//
// Blocks run one after another, in random order. Those of a cooperative launch are all there at once and take turns.
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "../include/grid.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
int emulated_harsh;

namespace emulated {

struct Fibre {
    char* stack = nullptr;
    ucontext_t start;
    jmp_buf at;          // where it waits; _setjmp is swapcontext without its two system calls
    bool begun = false;
    uint3 thread;
    int line;            // of the barrier it waits at
};

struct Warp : Lanes {
    std::vector<Fibre*> waiting;
};

struct Block {
    uint3 index;
    std::vector<unsigned> order;         // of its threads
    size_t next_thread = 0, finished = 0, barriers = 0;
    std::deque<Fibre*> ready;            // may go on
    std::vector<Fibre*> waiting;         // at a barrier
    std::vector<Warp> warps;
    std::vector<char> shared;            // its shared memory while another block runs
};

const size_t STACK = 64 << 10, SHARED_FENCE = 1024, MOST_BARRIERS = 1 << 20;
alignas(128) char dynamic_shared[LARGEST_SHARED + SHARED_FENCE];

static jmp_buf scheduler;
static Fibre* running;
static Block* block;                     // the one that runs
static std::vector<Fibre*> idle;
static uint64_t chance;                  // the state of the random numbers
static bool paused;                      // a thread waits for another block
static char* fault;                      // the launch's message
static void (*call_kernel)();
static char* static_shared;              // the kernel's own shared memory, and its size
static size_t static_size;

inline uint64_t random_bits(uint64_t& state) {  // SplitMix64, Steele, Lea & Flood 2014
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

inline bool one_in(unsigned n) { return random_bits(chance) % n == 0; }

template <class T> void shuffle(std::vector<T>& items) {
    for (size_t k = items.size(); k > 1; --k) std::swap(items[k - 1], items[random_bits(chance) % k]);
}

static uint3 unravel(uint64_t k, const unsigned* size) {
    return {(unsigned)(k % size[0]), (unsigned)(k / size[0] % size[1]), (unsigned)(k / size[0] / size[1])};
}

static size_t number_of(uint3 thread) { return thread.x + (size_t)blockDim.x * (thread.y + blockDim.y * thread.z); }

__attribute__((noinline)) static void leave(int line) {  // whoever has put the fibre on a list resumes it
    Fibre* self = running;
    self->thread = threadIdx;
    self->line = line;
    if (!_setjmp(self->at)) _longjmp(scheduler, 1);
    threadIdx = self->thread;
}

void barrier(int line) {
    block->waiting.push_back(running);
    leave(line);
}

void pause() {  // of a thread that looks again and again at what another one writes
    paused = true;
    block->ready.push_back(running);
    leave(0);
}

static void run_threads() {  // what a fibre does
    for (;;) {
        while (block->next_thread < block->order.size()) {
            threadIdx = unravel(block->order[block->next_thread++], &blockDim.x);
            call_kernel();
            ++block->finished;
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
    void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) return nullptr;
    Fibre* fibre = new Fibre;
    fibre->stack = (char*)stack;
    getcontext(&fibre->start);
    fibre->start.uc_stack.ss_sp = stack;
    fibre->start.uc_stack.ss_size = STACK;
    makecontext(&fibre->start, run_threads, 0);
    return fibre;
}

template <class Fibres> void forget(Fibres& fibres) {  // threads that will never go on
    for (Fibre* fibre : fibres) {
        munmap(fibre->stack, STACK);
        delete fibre;
    }
    fibres.clear();
}

// Threads in random order: one by one, or whole warps, of which the first may end before the last begins.
template <class T, class Number> void mix(std::vector<T>& threads, Number number) {
    shuffle(threads);
    if (one_in(2)) return;
    uint64_t turn = random_bits(chance);
    auto place = [&](T thread) { uint64_t state = turn ^ number(thread) / 32; return random_bits(state); };
    std::stable_sort(threads.begin(), threads.end(), [&](T a, T b) { return place(a) < place(b); });
}

#define FAULT(...) (snprintf(fault, sizeof Launch::message, __VA_ARGS__), false)

// All threads that have not ended wait: whether they wait at one barrier.
static bool together() {
    size_t in_warps = 0, line = 0;
    for (Warp& warp : block->warps)
        if (!warp.waiting.empty()) in_warps += warp.waiting.size(), line = warp.waiting[0]->line;
    if (in_warps)
        return FAULT("%zu threads wait in line %zu for the rest of their warp, %zu at a barrier, %zu have ended",
                     in_warps, line, block->waiting.size(), block->finished);
    if (block->finished && block->waiting[0]->line > 0)
        return FAULT("%zu threads wait at the barrier in line %d, %zu have ended", block->waiting.size(),
                     block->waiting[0]->line, block->finished);
    for (Fibre* fibre : block->waiting)
        if (int first = block->waiting[0]->line; fibre->line != first)
            return FAULT("threads wait at different barriers, in lines %d and %d", abs(first), abs(fibre->line));
    if (++block->barriers > MOST_BARRIERS) return FAULT("over a million barriers: the kernel does not end");
    return true;
}

// Runs the block until it has ended or, where others wait for their turn, for a while; false for a fault.
static bool run_block(bool others) {
    while (block->finished < block->order.size()) {
        if (!block->ready.empty() && (block->next_thread == block->order.size() || one_in(8))) {
            Fibre* next = block->ready.front();
            block->ready.pop_front();
            resume(next);
        } else if (block->next_thread < block->order.size()) {
            Fibre* fibre = fresh_fibre();
            if (!fibre) return FAULT("no memory for another fibre");
            resume(fibre);
        } else {
            if (!together()) return false;
            mix(block->waiting, [](Fibre* fibre) { return number_of(fibre->thread); });
            block->ready.assign(block->waiting.begin(), block->waiting.end());
            block->waiting.clear();
            paused = one_in(4);
        }
        if (*fault) return false;
        if (others && paused) return true;
    }
    return true;
}

// Shared memory holds NaN when a block begins, as new memory does; beyond its end stand bytes to be found again.
static void move_shared(Launch& launch, Block& of, bool in) {
    size_t dynamic = launch.shared + SHARED_FENCE;
    char *there[] = {of.shared.data(), of.shared.data() + dynamic}, *here[] = {dynamic_shared, static_shared};
    for (int k = 0; k < (static_size ? 2 : 1); ++k)
        memcpy(in ? here[k] : there[k], in ? there[k] : here[k], k ? static_size : dynamic);
}

static bool run_turn(Launch& launch, Block& next, bool others) {
    block = &next;
    blockIdx = next.index;
    paused = false;
    move_shared(launch, next, true);
    if (!run_block(others)) return false;
    for (size_t k = 0; k < SHARED_FENCE; ++k)
        if (dynamic_shared[launch.shared + k] != (char)0xff)
            return FAULT("wrote %zu bytes beyond the %zu bytes of dynamic shared memory", k, launch.shared);
    if (others) move_shared(launch, next, false);
    return true;
}

static Block fresh_block(Launch& launch, uint64_t number) {
    Block made;
    made.index = unravel(number, launch.grid);
    made.order.resize((size_t)blockDim.x * blockDim.y * blockDim.z);
    for (size_t k = 0; k < made.order.size(); ++k) made.order[k] = k;
    mix(made.order, [](unsigned thread) { return thread; });
    made.warps.resize((made.order.size() + 31) / 32);
    made.shared.assign(launch.shared + SHARED_FENCE + static_size, (char)0xff);
    return made;
}

bool run_grid(Launch& launch, void (*kernel)(), char* shared, size_t shared_size) {
    call_kernel = kernel, static_shared = shared, static_size = shared_size;
    chance = launch.seed;
    fault = launch.message;
    *fault = 0;
    memcpy(&blockDim, launch.block, sizeof blockDim);
    memcpy(&gridDim, launch.grid, sizeof gridDim);
    std::vector<uint64_t> numbers((uint64_t)gridDim.x * gridDim.y * gridDim.z);
    for (size_t k = 0; k < numbers.size(); ++k) numbers[k] = k;
    shuffle(numbers);
    std::vector<Block> blocks;
    bool well = true;
    for (size_t k = 0; well && (k < numbers.size() || !blocks.empty());) {
        while (k < numbers.size() && (launch.cooperative || blocks.empty()))
            blocks.push_back(fresh_block(launch, numbers[k++]));
        size_t turn = random_bits(chance) % blocks.size();
        well = run_turn(launch, blocks[turn], blocks.size() > 1);
        if (well && blocks[turn].finished == blocks[turn].order.size()) blocks.erase(blocks.begin() + turn);
    }
    for (Block& left : blocks) {
        forget(left.ready);
        forget(left.waiting);
        for (Warp& warp : left.warps) forget(warp.waiting);
    }
    return well;
}

// -- what the lanes of a warp do together (warps.h) ----------------------------------------
Lanes& lanes() { return block->warps[number_of(threadIdx) / 32]; }
unsigned lane() { return number_of(threadIdx) % 32; }

// Waits until all lanes of the warp are here; the last one calls `compute`. Then the warp goes on, often at once.
void meet(int line, void (*compute)(Lanes&, const void*), const void* context) {
    Warp& warp = block->warps[number_of(threadIdx) / 32];
    if (warp.waiting.size() < 31) {
        warp.waiting.push_back(running);
        leave(line);
        return;
    }
    for (Fibre* fibre : warp.waiting)
        if (fibre->line != line) FAULT("lanes of a warp meet in lines %d and %d", fibre->line, line);
    compute(warp, context);
    shuffle(warp.waiting);
    bool later = one_in(8);
    for (Fibre* fibre : warp.waiting)
        later ? block->ready.push_back(fibre) : block->ready.push_front(fibre);
    warp.waiting.clear();
}

}  // namespace emulated
