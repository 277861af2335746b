// Replays recorded calls of the processor's engine: replay THREADS < calls > results (tests/replay.py).
//
// Every array lies in memory of exactly its size, and what the engine writes before it reads it is filled with NaN: a
// sanitizer sees each number too many, and the results each number that was never written.

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "engine.cpp"

namespace {

int threads_of_calls;

using Word = long long;
using Memory = std::unique_ptr<char, decltype(&std::free)>;

Memory exactly(size_t bytes) {
    Memory memory((char*)std::malloc(bytes), std::free);
    std::memset(memory.get(), 0xff, bytes);  // bytes of NaN
    return memory;
}

bool read(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }
Word read_word() {
    Word word;
    if (!read(&word, sizeof word)) std::exit(3);
    return word;
}

struct Array {
    Memory memory;
    size_t bytes;
    bool result;
};
using Arrays = std::map<Word, Array>;  // by the address in the process that recorded them

void read_arrays(Arrays& arrays, std::vector<Word>& order) {
    for (Word left = read_word(); left > 0; left--) {
        const Word address = read_word(), bytes = read_word(), result = read_word();
        Memory memory = exactly(bytes);
        if (!result && !read(memory.get(), bytes)) std::exit(3);
        arrays.emplace(address, Array{std::move(memory), (size_t)bytes, result != 0});
        order.push_back(address);
    }
}

// A call of the engine, whose vectors here may be wider than where it was recorded: the sizes are asked for anew.
struct Engine {
    Memory saved{nullptr, std::free};  // from forward to backward

    int operator()(const char* cell, int what, GPULSTM_ISA::Args& a) {
        using namespace GPULSTM_ISA;
        a.threads = threads_of_calls;
        if (ENTRY(engine)(cell, SIZES, &a)) return 1;
        if (what == FORWARD) saved = exactly(a.saved_bytes);
        Memory scratch = exactly(what == FORWARD ? a.forward_bytes : a.backward_bytes);
        a.saved = saved.get(), a.scratch = scratch.get();
        threads_of_calls = a.threads;  // no more than there are blocks of units
        return ENTRY(engine)(cell, what, &a);
    }
};

void replay_calls(const Arrays& arrays, int threads) {
    Engine engine;
    for (Word left = read_word(); left > 0; left--) {
        const Word what = read_word(), bytes = read_word();
        char cell[32];
        std::vector<Word> args(bytes / sizeof(Word));
        if (!read(cell, sizeof cell) || !read(args.data(), bytes)) std::exit(3);
        for (Word& word : args)
            if (auto found = arrays.find(word); found != arrays.end()) word = (Word)found->second.memory.get();
        threads_of_calls = threads;
        if (bytes != sizeof(GPULSTM_ISA::Args)) std::exit(4);
        if (engine(cell, (int)what, *(GPULSTM_ISA::Args*)args.data())) std::exit(5);
    }
}

}  // namespace

// In place of the pool: short sequences too run on as many threads as are asked for.
extern "C" void gpulstm_parallel(int, void (*work)(void*, int, int), void* context) {
    const int n = threads_of_calls;
    std::vector<std::thread> others;
    for (int thread = 1; thread < n; thread++) others.emplace_back(work, context, thread, n);
    work(context, 0, n);
    for (std::thread& other : others) other.join();
}

int main(int, char** arguments) {
    for (Word left = read_word(); left > 0; left--) {
        Arrays arrays;
        std::vector<Word> order;
        read_arrays(arrays, order);
        replay_calls(arrays, std::atoi(arguments[1]));
        for (Word address : order) {
            const Array& array = arrays.at(address);
            if (array.result) std::fwrite(array.memory.get(), 1, array.bytes, stdout);
        }
    }
}
