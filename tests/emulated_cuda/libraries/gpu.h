// What the emulated CUDA libraries share: devices, blocks of device memory, streams, graphs, modules and counts.
//
// Device memory is host memory. An operation of a stream is a closure that runs at once, or, while the stream is being
// captured, becomes a node of a graph, or, where settings.late is set, waits until it must run. Everything is behind one
// lock.
#pragma once
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace gpu {

// Numbers of cudaError_t and CUresult, which are the same where both have the error.
enum Error {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
    INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, PEER_ACCESS_UNSUPPORTED = 217,
    LAUNCH_FAILED = 719, COOPERATIVE_LAUNCH_TOO_LARGE = 720, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901, CAPTURE_MERGE = 902, CAPTURE_UNMATCHED = 903, CAPTURE_UNJOINED = 904,
    CAPTURE_IMPLICIT = 906, CAPTURED_EVENT = 907, UNKNOWN = 999
};
const char* name_of(int error);

// -- what tests read and set, through ctypes ----------------------------------------
struct Counts {
    uint64_t launches, graph_launches, graph_nodes, products, copies, fills, waits, allocations, bytes, most_bytes;
};
struct Settings {
    int devices = 0;                  // 0: there is no driver
    int idle = 0;                     // launches and products do nothing: what is left is the time of the host
    int harsh = 0;                    // denormals are flushed, elementary functions are off by an ulp
    int peers = 0;                    // devices may read each other's memory
    int multiprocessors = 40, compute_capability = 90;
    int late = 0;                     // non-blocking streams work in any order that their waits allow
    uint64_t memory = 16ull << 30;    // of a device
};
extern Counts counts;
extern Settings settings;
extern std::recursive_mutex lock;
extern thread_local int current;      // device

// -- memory ----------------------------------------
const size_t FENCE = 512;             // bytes in front of a block and behind it
struct Block {
    char* data;
    size_t size;
    int device;                       // -1: of the host, page-locked
};
Block* block_of(const void* address);  // null: it lies in no live block
bool fences_hold(const Block& block);
void set_fences(const Block& block);
int fault(const std::string& message); // remembers what went wrong, and answers LAUNCH_FAILED
int sticky();                          // LAUNCH_FAILED once, if a fault was found where no error could be given

// -- streams and graphs ----------------------------------------
using Operation = std::function<int()>;
struct Node {
    Operation run;
    std::set<int> after;              // the nodes that it waits for
    bool launch;                      // of a kernel or a product, which counts
};
struct Graph {
    std::vector<Node> nodes;
    struct Stream* origin;
    int mode;
    bool broken = false;              // by a call that capture does not allow
    std::set<struct Stream*> streams; // that take part in the capture
};
struct Stream {
    int device;
    bool blocking;                    // waits for the legacy stream, and that for it
    int priority;
    Graph* graph = nullptr;           // while it is captured
    std::set<int> last;               // its next node waits for these
    std::deque<Operation> queue;      // what has not run yet
    uint64_t queued = 0, done = 0;    // operations, ever
};
void finish(Stream* stream, uint64_t place);  // run its operations up to that one
void finish(void* stream);            // all of the stream's
void finish_all();                    // all of all streams'
bool idle(void* stream, uint64_t* count);  // whether nothing is to be done; then it counts
int enqueue(void* stream, Operation run, uint64_t* count, bool launch = false);
int no_capture(void* stream);         // OK, or the error of a call that waits or allocates while capture goes on
int allocation_allowed();
uint64_t next_seed();

}  // namespace gpu
