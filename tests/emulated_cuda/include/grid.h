// What a kernel's library needs of the runner (libraries/grid.cpp), which stands in the driver's library.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
extern int emulated_harsh;  // see harsh.cpp

namespace emulated {

struct Launch {
    unsigned grid[3], block[3];
    size_t shared;       // bytes of dynamic shared memory
    uint64_t seed;       // of the order of blocks and threads
    char message[256];   // out: what went wrong
    int cooperative;     // all blocks are there at once
};

const size_t LARGEST_SHARED = 228 << 10;
extern char dynamic_shared[];

struct Lanes {           // what the lanes of a warp give and get
    unsigned in[32][12], out[32][4];
};

// Runs every thread; `shared` is the kernel's static shared memory. False for a fault, which the launch's message names.
bool run_grid(Launch& launch, void (*kernel)(), char* shared, size_t shared_size);
void barrier(int line);  // of the block; below 0: threads that have ended are not waited for
void pause();            // of a thread that looks again and again at what another one writes
Lanes& lanes();          // of this thread's warp
unsigned lane();         // of this thread
void meet(int line, void (*compute)(Lanes&, const void*), const void* context);

}  // namespace emulated
