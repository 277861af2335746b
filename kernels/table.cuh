// Work on many arrays at once: each is cut into chunks, and a table says where each array's chunks begin
// (gpulstm/optim/table.py makes it).
#ifndef GPULSTM_TABLE
#define GPULSTM_TABLE

#include "math.cuh"

#ifdef GPULSTM_ISA
namespace GPULSTM_ISA {
#endif

// The array that a chunk belongs to: the last one whose first chunk is not after it. first_chunk (count + 1) is sorted;
// an array without elements has no chunk and is skipped.
FN long long array_of(const long long* first_chunk, long long count, long long chunk) {
    long long low = 0, high = count;
    while (high - low > 1) {
        long long middle = (low + high) / 2;
        if (first_chunk[middle] <= chunk) low = middle;
        else high = middle;
    }
    return low;
}

#ifdef GPULSTM_ISA
}  // namespace GPULSTM_ISA
#endif
#endif
