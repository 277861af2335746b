// What kernels/host/pool.h promises, one check for each name on the command line; tests/test_threads.py compiles it.
#include "../../kernels/host/pool.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition) \
    if (!(condition)) (std::fprintf(stderr, "line %d: want %s\n", __LINE__, #condition), std::_Exit(1))

namespace {

using GPULSTM_ISA::Barrier;

// -- one call, and what its threads saw ----------------------------------------
struct Call {
    int threads = 0;
    std::atomic<int> present{0};
    std::atomic<int> calls[64] = {};
};

// Each thread stays until all are there: a call whose threads came one after the other would never end.
void meet(void* context, int thread, int threads) {
    Call& call = *static_cast<Call*>(context);
    if (thread == 0) call.threads = threads;
    call.calls[thread]++;
    call.present++;
    while (call.present < threads) sched_yield();
}

void check_together(int asked, int want) {
    Call call;
    gpulstm_parallel(asked, meet, &call);
    CHECK(call.threads == want);
    for (int k = 0; k < 64; k++) CHECK(call.calls[k] == (k < want));
}

void together() {
    CHECK(gpulstm_num_threads() == 1);
    check_together(4, 1); // until it is told how many there may be
    gpulstm_set_num_threads(4);
    for (int repeat = 0; repeat < 50; repeat++) {
        for (int threads = 1; threads <= 4; threads++) check_together(threads, threads);
    }
    check_together(9, 4);
    gpulstm_set_num_threads(2);
    check_together(4, 2);
    gpulstm_set_num_threads(6);
    check_together(9, 6);
    check_together(0, 1);
    gpulstm_set_num_threads(-1);
    CHECK(gpulstm_num_threads() == 1);
    gpulstm_set_num_threads(1000);
    CHECK(gpulstm_num_threads() == 256);
}

// -- the barrier ----------------------------------------
struct Rounds {
    Barrier barrier;
    int rounds = 0;
    long written[64] = {}; // by each thread, in each round; plain numbers, so that ThreadSanitizer sees a lost order
};

void write_and_read(void* context, int thread, int threads) {
    Rounds& shared = *static_cast<Rounds*>(context);
    for (int round = 1; round <= shared.rounds; round++) {
        shared.written[thread] = round * 100 + thread;
        if (thread == round % threads && round % 64 == 0) usleep(2000); // the others wait for long: in the kernel
        shared.barrier.wait();
        for (int k = 0; k < threads; k++) CHECK(shared.written[k] == round * 100 + k);
        shared.barrier.wait();
    }
}

void barrier() {
    gpulstm_set_num_threads(8);
    for (int threads : {1, 2, 3, 8}) { // 8 is more than the cores of many machines
        Rounds shared;
        shared.barrier.n = threads;
        shared.rounds = threads > 2 ? 300 : 3000;
        gpulstm_parallel(threads, write_and_read, &shared);
    }
}

// -- calls within calls, and of several threads ----------------------------------------
void call_again(void* context, int, int) {
    Call inner;
    gpulstm_parallel(4, meet, &inner);
    CHECK(inner.threads == 1);
    static_cast<Call*>(context)->present++;
}

void nested() {
    gpulstm_set_num_threads(3);
    Call outer;
    gpulstm_parallel(3, call_again, &outer);
    CHECK(outer.present == 3);
    check_together(3, 3);
}

void hosts() {
    gpulstm_set_num_threads(3);
    std::atomic<int> shared{0}, alone{0};
    std::vector<std::thread> hosts;
    for (int host = 0; host < 4; host++) {
        hosts.emplace_back([&] {
            for (int repeat = 0; repeat < 500; repeat++) {
                Call call;
                gpulstm_parallel(3, meet, &call);
                CHECK(call.threads == 1 || call.threads == 3);
                CHECK(call.present == call.threads);
                (call.threads == 3 ? shared : alone)++;
            }
        });
    }
    for (std::thread& host : hosts) host.join();
    CHECK(shared > 0 && shared + alone == 2000);
}

void one_is_served() { // the other thread's call ends while the first one's lasts
    gpulstm_set_num_threads(2);
    auto second = [](void*, int thread, int) {
        if (thread == 0) std::thread([] { check_together(2, 1); }).join();
    };
    gpulstm_parallel(2, second, nullptr);
}

// -- forks ----------------------------------------
void check_child(void (*in_child)()) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(300); // one that hangs must not outlive the test
        in_child();
        std::_Exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void use_pool() {
    CHECK(gpulstm_num_threads() == 3);
    for (int repeat = 0; repeat < 20; repeat++) check_together(3, 3);
}

void forks() {
    gpulstm_set_num_threads(3);
    check_child(use_pool); // before the parent has threads
    use_pool();
    check_child([] {
        use_pool();
        check_child(use_pool);
    });
    use_pool();
}

std::atomic<int> inside{0};

void fork_inside() { // another thread is in the pool, for as long as the child lives
    gpulstm_set_num_threads(3);
    auto stay = [](void* context, int, int) {
        inside++;
        while (!*static_cast<std::atomic<bool>*>(context)) usleep(100);
    };
    for (int repeat = 0; repeat < 10; repeat++) {
        std::atomic<bool> over{false};
        inside = 0;
        std::thread host([&] { gpulstm_parallel(3, stay, &over); });
        while (inside < 3) usleep(100);
        check_child(use_pool);
        over = true;
        host.join();
    }
    use_pool();
}

// -- workers between calls, where they run, what they are spared ----------------------------------------
#if defined(__linux__)
bool all_asleep() { // every thread of the process but this one
    bool asleep = true;
    DIR* tasks = opendir("/proc/self/task");
    while (const dirent* task = readdir(tasks)) {
        if (task->d_name[0] == '.' || std::atoi(task->d_name) == getpid()) continue;
        std::ifstream file(std::string("/proc/self/task/") + task->d_name + "/stat");
        std::string text((std::istreambuf_iterator<char>(file)), {});
        asleep = asleep && text[text.rfind(')') + 2] == 'S';
    }
    closedir(tasks);
    return asleep;
}

void sleep_between_calls() {
    gpulstm_set_num_threads(4);
    for (int repeat = 0; repeat < 20; repeat++) {
        check_together(4, 4);
        int looks = 0;
        while (!all_asleep() && looks < 10000) usleep(1000), looks++;
        CHECK(looks < 10000);
    }
}

struct Places {
    cpu_set_t cores[3];
    int core = -1;
};

void look_at_cores(void* context, int thread, int) {
    Places& places = *static_cast<Places*>(context);
    sched_getaffinity(0, sizeof places.cores[0], &places.cores[thread]);
    if (thread == 0) places.core = sched_getcpu();
}

void other_cores() {
    cpu_set_t all;
    sched_getaffinity(0, sizeof all, &all);
    if (CPU_COUNT(&all) > 2) { // a worker that is made later
        gpulstm_set_num_threads(3);
        Places places;
        for (int threads = 2; threads <= 3; threads++) gpulstm_parallel(threads, look_at_cores, &places);
        CHECK(CPU_COUNT(&places.cores[2]) == CPU_COUNT(&all) - 1);
    }
    gpulstm_set_num_threads(2);
    for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&all) > 1; core++) {
        if (!CPU_ISSET(core, &all)) continue;
        bool seen = false;
        for (int repeat = 0; repeat < 1000 && !seen; repeat++) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(core, &one);
            sched_setaffinity(0, sizeof one, &one); // to get there
            sched_setaffinity(0, sizeof all, &all);
            const int before = sched_getcpu();
            Places places;
            gpulstm_parallel(2, look_at_cores, &places);
            seen = before == core && places.core == core; // else it has moved on
            if (!seen) continue;
            CHECK(!CPU_ISSET(core, &places.cores[1]));
            CHECK(CPU_COUNT(&places.cores[1]) == CPU_COUNT(&all) - 1);
            CHECK(CPU_EQUAL(&places.cores[0], &all));
        }
        CHECK(seen);
    }
    gpulstm_set_num_threads(CPU_COUNT(&all) + 1); // more threads than cores
    Places places;
    gpulstm_parallel(2, look_at_cores, &places);
    CHECK(CPU_EQUAL(&places.cores[1], &all));
}
#else
void sleep_between_calls() {}
void other_cores() {}
#endif

void signals() {
    gpulstm_set_num_threads(2);
    auto look = [](void*, int thread, int) {
        sigset_t blocked;
        pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
        CHECK(sigismember(&blocked, SIGINT) == (thread > 0));
    };
    gpulstm_parallel(2, look, nullptr);
}

struct Check {
    const char* name;
    void (*run)();
} checks[] = {
    {"together", together},
    {"barrier", barrier},
    {"nested", nested},
    {"hosts", hosts},
    {"one_is_served", one_is_served},
    {"forks", forks},
    {"fork_inside", fork_inside},
    {"sleep_between_calls", sleep_between_calls},
    {"other_cores", other_cores},
    {"signals", signals},
};

} // namespace

int main(int count, char** names) {
    for (int k = 1; k < count; k++) {
        bool known = false;
        for (const Check& check : checks) {
            if (!std::strcmp(names[k], check.name)) known = true, check.run();
        }
        CHECK(known);
    }
}
