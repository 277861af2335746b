// Dropout: y = x * (draw >= threshold ? scale : 0), the draws made from a seed as in kernels/dropout.cu.
#include "exported.h"
#include "share.h"
#include "split_mix.cuh"

namespace GPULSTM_ISA {

constexpr long long block = 1024; // numbers whose draws are made at once

static void make_draws(unsigned short* draws, unsigned long long seed, long long first_word) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a word's lowest 16 bits come first");
    for (long long word = 0; word < block / 4; word++) {
        unsigned long long four = split_mix(seed, first_word + word);
        asm("" : "+r"(four)); // keeps it out of vectors, where AVX2 multiplies 64 bits at half the speed
        __builtin_memcpy(draws + 4 * word, &four, sizeof four);
    }
}

static void apply(const unsigned short* draws, const REAL* x, REAL* y, long long n, int threshold, REAL scale) {
    for (long long k = 0; k < n; k++) {
        const REAL kept = draws[k] >= threshold ? scale : 0;
        y[k] = x ? x[k] * kept : kept;
    }
}

} // namespace GPULSTM_ISA

// x (n) or null for ones, y (n); seed is read as unsigned, 0 <= threshold <= 65536.
EXPORTED void ENTRY(dropout)(
    const REAL* x, REAL* y, long long n, long long seed, long long threshold, double scale)
{
    using namespace GPULSTM_ISA;
    share((n + block - 1) / block, n, [=](long long first, long long last) {
        unsigned short draws[block];
        for (long long k = first * block; k < n && k < last * block; k += block) {
            make_draws(draws, seed, k / 4);
            apply(draws, x ? x + k : x, y + k, n - k < block ? n - k : block, (int)threshold, (REAL)scale);
        }
    });
}
