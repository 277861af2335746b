// The pool of threads behind pool.h: created at the first call, asleep between calls, created again in a forked child.
//
// A call costs a store for each worker that still spins after the last call, and a wake-up for each that sleeps. The
// caller's thread may be on any core, and a worker that woke up on the same core would have to wait for the caller. So
// workers use the other cores.
#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#endif

namespace {

using GPULSTM_ISA::Barrier;
using GPULSTM_ISA::relax;

constexpr int most = 256;
constexpr std::chrono::microseconds spinning{50}; // of a worker after a call; a longer time would slow the program

struct alignas(64) Worker {
    std::atomic<unsigned> calls{0}; // the number of calls to this worker
    std::atomic<bool> asleep{false};
    std::mutex lock;
    std::condition_variable called;
    std::thread::native_handle_type handle{};
};

struct Pool {
    std::atomic<bool> busy{false};
    void (*work)(void*, int, int) = nullptr; // of the current call, with its context and number of threads
    void* context = nullptr;
    int threads = 0;
    Barrier done;
    int workers = 0; // threads created; worker k is thread k + 1 of a call
    int core = -1, placed = 0; // the caller's core and the limit of threads when the workers were given their cores
    Worker worker[most - 1];
};

std::atomic<int> limit{1};

// Never destroyed: workers sleep in it until the process ends.
alignas(Pool) unsigned char memory[sizeof(Pool)];
Pool& pool = *new (memory) Pool;

// -- workers ----------------------------------------
void wait_for_call(Worker& worker, unsigned seen) {
    const auto until = std::chrono::steady_clock::now() + spinning;
    do {
        for (int k = 0; k < 16; k++) {
            if (worker.calls.load(std::memory_order_acquire) != seen) return;
            relax();
        }
    } while (std::chrono::steady_clock::now() < until);
    std::unique_lock<std::mutex> held(worker.lock);
    worker.asleep = true; // before the last look at `calls`: call() writes and looks in the opposite order
    while (worker.calls.load() == seen) worker.called.wait(held);
    worker.asleep = false;
}

void call(Worker& worker) {
    worker.calls.fetch_add(1);
    if (!worker.asleep.load()) return;
    std::lock_guard<std::mutex> held(worker.lock);
    worker.called.notify_one();
}

void serve(int thread) {
    Worker& worker = pool.worker[thread - 1];
    for (unsigned seen = 0;; seen++) {
        wait_for_call(worker, seen);
        pool.work(pool.context, thread, pool.threads);
        pool.done.wait();
    }
}

// -- what depends on the operating system ----------------------------------------
#if defined(_WIN32)

// Keeps the library's code in memory for the workers, even if someone unloads the library.
void keep_loaded() {
    HMODULE module;
    const auto flags = GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    GetModuleHandleExA(flags, reinterpret_cast<LPCSTR>(&gpulstm_parallel), &module);
}

struct SignalsBlocked {};

#else

void keep_loaded() {
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(&gpulstm_parallel), &info)) {
        dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    }
}

// Threads created while this object exists receive no signals, which are for the program's own threads.
struct SignalsBlocked {
    sigset_t before;
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
};

// A forked child has only the thread that forked, so it needs a new pool, whatever state the old one was in.
void forget_workers() { new (memory) Pool; }

const int registered = pthread_atfork(nullptr, nullptr, forget_workers);

#endif

#if defined(__linux__)

// Gives every worker the cores that the caller may use, except the caller's own core; all, if threads outnumber cores.
void place_workers() {
    const int core = sched_getcpu(), threads = limit;
    cpu_set_t cores;
    if (core < 0 || (core == pool.core && threads == pool.placed)) return;
    if (pthread_getaffinity_np(pthread_self(), sizeof cores, &cores)) return;
    if (CPU_COUNT(&cores) > 1 && CPU_COUNT(&cores) >= threads) CPU_CLR(core, &cores);
    for (int k = 0; k < pool.workers; k++) pthread_setaffinity_np(pool.worker[k].handle, sizeof cores, &cores);
    pool.core = core;
    pool.placed = threads;
}

#else

void place_workers() {}

#endif

// Creates workers up to the number wanted, or fewer if the system gives no more threads.
void make_workers(int wanted) {
    if (pool.workers >= wanted) return;
    keep_loaded();
    SignalsBlocked blocked;
    try {
        while (pool.workers < wanted) {
            std::thread thread(serve, pool.workers + 1);
            pool.worker[pool.workers++].handle = thread.native_handle();
            thread.detach();
        }
    } catch (const std::system_error&) {
    }
    pool.core = -1; // the new ones have to be placed
}

} // namespace

// -- the interface ----------------------------------------
void gpulstm_set_num_threads(int n) { limit = n < 1 ? 1 : n > most ? most : n; }

int gpulstm_num_threads(void) { return limit; }

void gpulstm_parallel(int threads, void (*work)(void*, int, int), void* context) {
    if (threads > limit) threads = limit;
    if (threads <= 1 || pool.busy.exchange(true, std::memory_order_acquire)) return work(context, 0, 1);
    make_workers(threads - 1);
    place_workers();
    if (threads > pool.workers + 1) threads = pool.workers + 1;
    pool.work = work;
    pool.context = context;
    pool.threads = pool.done.n = threads;
    for (int k = 0; k < threads - 1; k++) call(pool.worker[k]);
    work(context, 0, threads);
    pool.done.wait();
    pool.busy.store(false, std::memory_order_release);
}
