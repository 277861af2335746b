// What the 32 threads of a warp do together: they meet, exchange values, and multiply small matrices.
//
// kernels/device.cuh calls these where a GPU has an instruction for it.
#pragma once

namespace emulated {

// Waits until all lanes of the warp are here; the last one calls `compute`.
template <class Compute> void meet(int line, Compute compute) {
    meet(line, [](Lanes& all, const void* context) { (*(const Compute*)context)(all); }, &compute);
}

// The `words` that lane `from(lane)` gives, in every lane.
template <class From> void exchange(int line, const unsigned* given, unsigned* got, int words, From from) {
    Lanes& warp = lanes();
    memcpy(warp.in[lane()], given, words * sizeof *given);
    meet(line, [&](Lanes& all) {
        for (int to = 0; to < 32; ++to) memcpy(all.out[to], all.in[from(to)], words * sizeof *given);
    });
    memcpy(got, warp.out[lane()], words * sizeof *given);
}

// c (16, 8) += a (16, K) b (K, 8) of a warp, each lane with its fragments of PTX' mma.m16n8k<K>: A_WORDS words of a, half
// as many of b, 4 of c. A word has PER values, `value(word, n)` is its n-th.
template <int PER, int A_WORDS, class Value>
void multiply_fragments(int line, float* c, const unsigned* a, const unsigned* b, Value value) {
    constexpr int K = PER * 2 * A_WORDS, B_WORDS = A_WORDS / 2;
    Lanes& warp = lanes();
    size_t self = lane();
    memcpy(warp.in[self], a, A_WORDS * sizeof *a);
    memcpy(warp.in[self] + 4, b, B_WORDS * sizeof *b);
    memcpy(warp.in[self] + 6, c, 4 * sizeof *c);
    meet(line, [&](Lanes& all) {
        float left[16][K], right[K][8];
        for (int lane = 0; lane < 32; ++lane) {
            int group = lane / 4, place = lane % 4;
            for (int n = 0; n < PER; ++n) {
                for (int k = 0; k < A_WORDS; ++k)
                    left[group + k % 2 * 8][PER * (place + k / 2 * 4) + n] = value(all.in[lane][k], n);
                for (int k = 0; k < B_WORDS; ++k)
                    right[PER * (place + k * 4) + n][group] = value(all.in[lane][4 + k], n);
            }
        }
        for (int lane = 0; lane < 32; ++lane)
            for (int k = 0; k < 4; ++k) {
                int row = lane / 4 + k / 2 * 8, column = lane % 4 * 2 + k % 2;
                float sum;
                memcpy(&sum, &all.in[lane][6 + k], sizeof sum);
                for (int n = 0; n < K; ++n) sum += left[row][n] * right[n][column];
                memcpy(&all.out[lane][k], &sum, sizeof sum);
            }
    });
    memcpy(c, warp.out[self], 4 * sizeof *c);
}

}  // namespace emulated
