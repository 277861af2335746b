// Streams, events, capture and graphs.
//
// Work runs at once, so that streams, events and waiting do nothing but count. With settings.late the work of streams
// that do not block runs later, in a random order among those that the waits allow, and so do always the nodes of a
// graph: a wait that is missing shows as a wrong number.
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "gpu.h"

namespace gpu {

struct Event {
    double time = 0;                  // milliseconds
    Graph* graph = nullptr;           // recorded in a capture
    std::set<int> last;
    Stream* stream = nullptr;         // recorded after ``place`` operations of it
    uint64_t place = 0;
};

static std::set<Graph*> capturing;
static std::set<Stream*> living;

// The capture that the event belongs to, while it goes on.
static Graph* captured(cudaEvent_t event) {
    Graph* graph = ((Event*)event)->graph;
    return capturing.count(graph) ? graph : nullptr;
}

static Stream* own(void* stream) { return (uintptr_t)stream > 2 ? (Stream*)stream : nullptr; }

uint64_t next_seed() {
    static uint64_t seed;
    return ++seed;
}

static int broken(Graph* graph, int error) {
    if (graph) graph->broken = true;
    return error;
}

// The legacy stream waits for streams that are captured, which cannot be.
static int implicit() {
    for (Graph* graph : capturing)
        for (Stream* stream : graph->streams)
            if (stream->blocking && stream->device == current) return broken(graph, CAPTURE_IMPLICIT);
    return OK;
}

int no_capture(void* stream) {
    if (Stream* mine = own(stream)) return mine->graph ? broken(mine->graph, CAPTURE_UNSUPPORTED) : OK;
    return implicit();
}

int allocation_allowed() {
    for (Graph* graph : capturing)
        if (graph->mode != cudaStreamCaptureModeRelaxed) return broken(graph, CAPTURE_UNSUPPORTED);
    return OK;
}

bool idle(void* stream, uint64_t* count) {
    if (!settings.idle || (own(stream) && own(stream)->graph)) return false;
    ++*count;
    return true;
}

void finish(Stream* stream, uint64_t place) {
    while (living.count(stream) && stream->done < place) {
        Operation run = std::move(stream->queue.front());
        stream->queue.pop_front();
        ++stream->done;
        if (run()) fprintf(stderr, "emulated CUDA: work that ran late has failed\n"), abort();
    }
}
void finish(void* stream) {
    if (Stream* mine = own(stream)) finish(mine, mine->queued);
}
void finish_all() {
    for (Stream* stream : std::set<Stream*>(living)) finish(stream, stream->queued);
}

// Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".
static uint64_t drawn() {
    uint64_t z = next_seed() * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// Time goes by: some stream may work.
static void progress() {
    if (drawn() % 3) return;
    std::vector<Stream*> busy;
    for (Stream* stream : living)
        if (!stream->queue.empty()) busy.push_back(stream);
    if (busy.empty()) return;
    Stream* chosen = busy[drawn() % busy.size()];
    finish(chosen, chosen->done + 1 + drawn() % chosen->queue.size());
}

static int late(Stream* stream, Operation run) {
    stream->queue.push_back(std::move(run));
    ++stream->queued;
    progress();
    return OK;
}

// Waits for what the event was recorded after; a stream whose work runs late waits when it comes to that.
static void wait_for(Stream* waiting, const Event& event) {
    Stream* other = event.stream;
    uint64_t place = event.place;
    if (waiting && settings.late && !waiting->blocking) {
        late(waiting, [=] { finish(other, place); return (int)OK; });
    } else {
        finish(other, place);
    }
}

int enqueue(void* stream, Operation run, uint64_t* count, bool launch) {
    Stream* mine = own(stream);
    if (!mine) {
        if (int error = implicit()) return error;
    } else if (mine->device != current && launch) {
        return INVALID_HANDLE;
    } else if (Graph* graph = mine->graph) {
        if (graph->broken) return CAPTURE_INVALIDATED;
        graph->nodes.push_back({std::move(run), mine->last, launch});
        mine->last = {(int)graph->nodes.size() - 1};
        return OK;
    }
    if (int error = sticky()) return error;
    ++*count;
    if (mine && settings.late && !mine->blocking) return late(mine, std::move(run));
    finish(stream);
    return run();
}

static int wait_for_all() {
    ++counts.waits;
    for (Graph* graph : capturing) return broken(graph, CAPTURE_UNSUPPORTED);
    finish_all();
    return sticky();
}

static double now() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Whether every node of the graph comes before what its first stream would do next.
static bool joined(const Graph& graph) {
    std::set<int> seen, next = graph.origin->last;
    while (!next.empty()) {
        int node = *next.begin();
        next.erase(next.begin());
        if (seen.insert(node).second) next.insert(graph.nodes[node].after.begin(), graph.nodes[node].after.end());
    }
    return seen.size() == graph.nodes.size();
}

static int replay(const Graph& graph) {
    std::vector<size_t> waits(graph.nodes.size());
    std::vector<std::vector<int>> followers(graph.nodes.size());
    std::vector<int> ready;
    for (size_t k = 0; k < graph.nodes.size(); ++k) {
        waits[k] = graph.nodes[k].after.size();
        for (int before : graph.nodes[k].after) followers[before].push_back((int)k);
        if (!waits[k]) ready.push_back((int)k);
    }
    uint64_t random = next_seed() * 0x9e3779b97f4a7c15;
    while (!ready.empty()) {
        random = random * 6364136223846793005 + 1442695040888963407;
        size_t chosen = (random >> 33) % ready.size();
        int node = ready[chosen];
        ready.erase(ready.begin() + chosen);
        ++counts.graph_nodes;
        if (int error = graph.nodes[node].run()) return error;
        for (int follower : followers[node])
            if (!--waits[follower]) ready.push_back(follower);
    }
    return OK;
}

}  // namespace gpu

using namespace gpu;
using Locked = std::lock_guard<std::recursive_mutex>;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
    Locked _(lock);
    Stream* made = new Stream{current, !(flags & cudaStreamNonBlocking), priority};
    living.insert(made);
    *stream = (cudaStream_t)made;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    Locked _(lock);
    finish(stream);
    living.erase(own(stream));
    delete own(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
    *flags = own(stream) && !own(stream)->blocking ? cudaStreamNonBlocking : 0;
    return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
    *priority = own(stream) ? own(stream)->priority : 0;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    Locked _(lock);
    ++counts.waits;
    if (int error = no_capture(stream)) return (cudaError_t)error;
    finish(stream);
    return (cudaError_t)sticky();
}
cudaError_t cudaDeviceSynchronize() {
    Locked _(lock);
    return (cudaError_t)wait_for_all();
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    Locked _(lock);
    finish(stream);
    return (cudaError_t)no_capture(stream);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = (cudaEvent_t) new Event;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { delete (Event*)event; return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    Locked _(lock);
    Event& mine = *(Event*)event;
    Stream* from = own(stream);
    if (!from)
        if (int error = implicit()) return (cudaError_t)error;
    mine.graph = from ? from->graph : nullptr;
    if (mine.graph) mine.last = from->last;
    mine.stream = from;
    mine.place = from ? from->queued : 0;
    mine.time = now();
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    Locked _(lock);
    Graph* graph = captured(event);
    Stream* mine = own(stream);
    if (!mine && graph) return (cudaError_t)CAPTURE_IMPLICIT;
    if (!graph && mine && mine->graph) return (cudaError_t)broken(mine->graph, CAPTURE_UNSUPPORTED);
    if (!graph) {
        wait_for(mine, *(Event*)event);
        return cudaSuccess;
    }
    if (mine->graph && mine->graph != graph) return cudaErrorStreamCaptureMerge;
    mine->graph = graph;
    graph->streams.insert(mine);
    const Event& other = *(Event*)event;
    mine->last.insert(other.last.begin(), other.last.end());
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    Locked _(lock);
    ++counts.waits;
    if (captured(event)) return cudaErrorCapturedEvent;
    wait_for(nullptr, *(Event*)event);
    return (cudaError_t)sticky();
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    Locked _(lock);
    if (captured(event)) return cudaErrorCapturedEvent;
    wait_for(nullptr, *(Event*)event);
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
    *milliseconds = (float)(((Event*)stop)->time - ((Event*)start)->time);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    Locked _(lock);
    Stream* mine = own(stream);
    if (!mine) return cudaErrorStreamCaptureUnsupported;
    if (mine->graph) return cudaErrorIllegalState;
    mine->graph = new Graph{{}, mine, (int)mode, false, {mine}};
    mine->last.clear();
    capturing.insert(mine->graph);
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* answer) {
    Locked _(lock);
    Stream* mine = own(stream);
    *answer = nullptr;
    if (!mine || !mine->graph) return cudaErrorIllegalState;
    Graph* graph = mine->graph;
    if (graph->origin != mine) return cudaErrorStreamCaptureUnmatched;
    bool whole = joined(*graph);
    for (Stream* each : graph->streams) each->graph = nullptr, each->last.clear();
    capturing.erase(graph);
    int error = graph->broken ? CAPTURE_INVALIDATED : whole ? OK : CAPTURE_UNJOINED;
    if (!error) *answer = (cudaGraph_t)graph;
    return (cudaError_t)error;  // a graph that failed stays: an event may know it
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    Stream* mine = own(stream);
    *status = !mine || !mine->graph ? cudaStreamCaptureStatusNone
              : mine->graph->broken ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* answer, cudaGraph_t graph, unsigned long long) {
    *answer = (cudaGraphExec_t) new Graph(*(Graph*)graph);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    Locked _(lock);
    const Graph* whole = (const Graph*)graph;
    return (cudaError_t)enqueue(stream, [=] { return replay(*whole); }, &counts.graph_launches);
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { delete (Graph*)graph; return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    Locked _(lock);
    finish_all();
    delete (Graph*)graph;
    return cudaSuccess;
}

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

}  // extern "C"
