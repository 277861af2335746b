// Dropout: the mask is computed from a seed, not stored; forward and backward are the same kernel.
//
//     y = x * (draw >= threshold ? scale : 0)
//
// One word of split_mix.cuh has four draws of 16 bits each, the lowest first.

#include "common.cuh"
#include "split_mix.cuh"

// x         (n)  input, or the gradient of the output
// y         (n)  out; may be x itself
// seed           its 64 bits are read as unsigned
// threshold      0..65536; a draw below it drops the element
// scale          what a kept element is multiplied by
// first, run, step  element k has draw number first + k / run * step + k % run; run = n for one row of draws
// Moves 2 values an element: x in, y out. One thread serves four elements, most often by one word.
extern "C" __global__ void dropout(
    const REAL* x, REAL* y, long long n, long long seed, long long threshold, double scale, long long first,
    long long run, long long step)
{
    FOR_EACH(four, (n + 3) / 4) {
        long long word = -1;
        unsigned long long draws = 0;
        for (long long k = 4 * four; k < 4 * four + 4 && k < n; ++k) {
            long long number = first + (k < run ? k : k / run * step + k % run);  // a division takes many instructions
            if (number / 4 != word) draws = split_mix((unsigned long long)seed, word = number / 4);
            long long draw = (long long)(draws >> (16 * (number % 4)) & 0xFFFF);
            y[k] = store(load(x[k]) * (draw >= threshold ? (ACC)scale : (ACC)0));
        }
    }
}
