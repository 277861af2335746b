// Dropout: y = x * (draw >= threshold ? scale : 0); the draws come from a seed as in kernels/dropout.cu.
#include "exported.h"
#include "share.h"
#include "split_mix.cuh"

namespace GPULSTM_ISA {

constexpr long long block = 1024; // elements whose draws are computed at a time

static void make_draws(unsigned short* draws, unsigned long long seed, long long first_word, long long words) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a word's lowest 16 bits come first");
    for (long long word = 0; word < words; word++) {
        unsigned long long four = split_mix(seed, first_word + word);
        asm("" : "+r"(four)); // prevents vectors: AVX2 multiplies 64-bit numbers at half the speed
        __builtin_memcpy(draws + 4 * word, &four, sizeof four);
    }
}

static long long smaller(long long a, long long b) { return a < b ? a : b; }

static void apply(const unsigned short* draws, const REAL* x, REAL* y, long long n, int threshold, REAL scale) {
    for (long long k = 0; k < n; k++) {
        const REAL kept = draws[k] >= threshold ? scale : 0;
        y[k] = x ? x[k] * kept : kept;
    }
}

} // namespace GPULSTM_ISA

// x (n) or null for ones, y (n); seed is read as unsigned, 0 <= threshold <= 65536. Element k has draw number
// from + k / run * step + k % run.
EXPORTED void ENTRY(dropout)(
    const REAL* x, REAL* y, long long n, long long seed, long long threshold, double scale, long long from,
    long long run, long long step)
{
    using namespace GPULSTM_ISA;
    share((n + block - 1) / block, n, [=](long long first, long long last) {
        unsigned short draws[block + 8];
        const long long end = smaller(n, last * block);
        for (long long k = first * block, size; k < end; k += size) {
            const long long number = from + k / run * step + k % run, skipped = number % 4;
            size = smaller(smaller(end - k, block), run - k % run);
            make_draws(draws, seed, number / 4, (skipped + size + 3) / 4);
            apply(draws + skipped, x ? x + k : x, y + k, size, (int)threshold, (REAL)scale);
        }
    });
}
