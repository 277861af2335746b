// Threads for the processor's code: the C interface of the pool (pool.cpp), and the barrier for the threads of a call.
#pragma once

#include "exported.h"

#if defined(_WIN32)
extern "C" __declspec(dllimport) int __stdcall SwitchToThread(void);
#else
#include <sched.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if !defined(GPULSTM_ISA) // each instruction set has its own namespace, so that objects share no inline function
#define GPULSTM_ISA baseline
#endif

// Runs work(context, thread, n) for each thread 0 <= thread < n, all at the same time, and returns when all are done.
// Thread 0 is the caller's. n is at most `threads` and the number set below. It is 1 for a call from within `work`, and
// while the pool works for another thread of the program.
EXPORTED void gpulstm_parallel(int threads, void (*work)(void* context, int thread, int threads), void* context);
// The most threads of a call, 1 to 256. It is 1 until it is set: gpulstm/threads.py knows what the process may use.
EXPORTED void gpulstm_set_num_threads(int n);
EXPORTED int gpulstm_num_threads(void);

namespace GPULSTM_ISA {

// Tells the processor that this thread is spinning.
inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb"); // "yield" does nothing on most ARM processors
#endif
}

// Lets another thread have this processor.
inline void yield() {
#if defined(_WIN32)
    SwitchToThread();
#else
    sched_yield();
#endif
}

// A reusable barrier for as many threads as wait is told, or for n, which the creator sets.
struct alignas(64) Barrier {
    int n = 1;
    alignas(64) int arrived = 0;
    alignas(64) int round = 0; // grows by one each time that all have arrived
    int asleep = 0;            // threads that wait in the operating system's kernel

    void wait() { wait(n); } // n is read first, since the next use may change it
    void wait(int all) {
        const int now = __atomic_load_n(&round, __ATOMIC_RELAXED);
        if (all == 1) return;
        if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) < all) return wait_for_others(now);
        __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
        // In this order: a thread about to sleep adds itself to `asleep` and then looks at `round` once more.
        __atomic_store_n(&round, now + 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&asleep, __ATOMIC_SEQ_CST)) wake();
    }

private:
    static constexpr int spins = 1000, yields = 16; // 1000 spins take 10 to 50 microseconds

    bool open(int now) const { return __atomic_load_n(&round, __ATOMIC_ACQUIRE) != now; }

    // A thread that is very late has lost its processor, perhaps to this thread, which therefore yields it.
    void wait_for_others(int now) {
        for (int turn = 0;; turn++) {
            for (int k = 0; k < spins; k++) {
                if (open(now)) return;
                relax();
            }
            turn < yields ? yield() : sleep(now);
        }
    }

#if defined(__linux__)
    void sleep(int now) {
        __atomic_add_fetch(&asleep, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &round, FUTEX_WAIT_PRIVATE, now, nullptr, nullptr, 0); // returns at once if round != now
        __atomic_sub_fetch(&asleep, 1, __ATOMIC_SEQ_CST);
    }
    void wake() { syscall(SYS_futex, &round, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0); }
#else
    void sleep(int) { yield(); }
    void wake() {}
#endif
};

} // namespace GPULSTM_ISA
