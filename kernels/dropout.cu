// Dropout: the mask is computed from a seed, not stored; forward and backward are the same kernel.
//
//     y = x * (draw >= threshold ? scale : 0)
//
// One word of split_mix.cuh serves four elements with 16 bits each, the lowest first.

#include "common.cuh"
#include "split_mix.cuh"

// x         (n)  input, or the gradient of the output
// y         (n)  out; may be x itself
// seed           its 64 bits are read as unsigned
// threshold      0..65536; a draw below it drops the element
// scale          what a kept element is multiplied by
// Moves 2 values an element: x in, y out. One thread makes one word and serves its four elements.
extern "C" __global__ void dropout(
    const REAL* x, REAL* y, long long n, long long seed, long long threshold, double scale)
{
    FOR_EACH(word, (n + 3) / 4) {
        unsigned long long draws = split_mix((unsigned long long)seed, (unsigned long long)word);
        for (int part = 0; part < 4; ++part) {
            long long k = 4 * word + part;
            if (k >= n) break;
            long long draw = (long long)(draws >> (16 * part) & 0xFFFF);
            y[k] = store(load(x[k]) * (draw >= threshold ? (ACC)scale : (ACC)0));
        }
    }
}
