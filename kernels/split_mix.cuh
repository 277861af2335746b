// The random words of dropout: SplitMix64 (Steele, Lea & Flood 2014). Any word of a sequence can be computed directly.
// The integers are those of gpulstm/functional/dropout.py, so that a seed gives the same mask on every device.
#ifndef GPULSTM_SPLIT_MIX
#define GPULSTM_SPLIT_MIX

#include "math.cuh"

#ifdef GPULSTM_ISA
namespace GPULSTM_ISA {
#endif

// Word number `index` of the sequence of `seed`.
FN unsigned long long split_mix(unsigned long long seed, unsigned long long index) {
    unsigned long long z = seed + (index + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

#ifdef GPULSTM_ISA
}  // namespace GPULSTM_ISA
#endif
#endif
