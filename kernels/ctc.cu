// Connectionist temporal classification: the loss of each sequence, and the gradient of its logits.
//
// alpha_t(s) is the log probability of all beginnings of paths that are at position s after step t. beta_t(s) is the
// log probability of all ends of paths from s on, without step t:
//
//     alpha_t(s) = log p_t(s) + log_sum(alpha_{t-1}(s), alpha_{t-1}(s - 1), alpha_{t-1}(s - 2) where s skips)
//     beta_t(s)  = log_sum(over the positions r that s leads to: beta_{t+1}(r) + log p_{t+1}(r))
//     loss       = -log_sum(alpha of the last two positions after the last step)
//     dlogits_tc = scale (p_tc - sum over the positions s of class c: softmax over s of alpha_t(s) + beta_t(s))
//
// The largest value of the row before is subtracted from every row, and the sum of these values, in double, is added
// again in the loss. So rows stay near zero, and thousands of steps lose few digits. The caller widens half types.
//
// One block computes one sequence. Its threads share the positions, and synchronise after every step.

#include "common.cuh"
#include "ctc.cuh"

#ifndef THREADS
#define THREADS 128
#endif

#define EACH(k, n) (long long k = threadIdx.x; k < (n); k += blockDim.x)

__device__ inline void prepare(const Sequence<ACC>& q) {
    for EACH (k, q.width) q.prepare(k);
    __syncthreads();
}

// The arrays are described in ctc.cuh.
// loss (B)  out: infinite if no path fits into the steps
extern "C" __global__ void ctc_alpha(
    const ACC* __restrict__ log_probs, const long long* __restrict__ targets, const long long* __restrict__ lengths,
    ACC* alpha, ACC* rows, long long* classes, ACC* __restrict__ loss, long long T, long long B, long long C,
    long long S, long long blank)
{
    __shared__ ACC scratch[THREADS];
    const ACC nothing = log_((ACC)0);
    for (long long b = blockIdx.x; b < B; b += gridDim.x) {
        const Sequence<ACC> q({log_probs, targets, lengths, alpha, rows, classes, T, B, C, S, blank}, b);
        prepare(q);
        double taken = 0;
        ACC most = 0;
        for (long long t = 0; t < q.T; t++) {
            const ACC* before = q.row(t + 1);
            ACC largest = nothing;
            for EACH (s, q.L) {
                ACC sum = s < 2 ? 0 : nothing;
                if (t > 0) sum = log_sum(before[s], before[s - 1], before[s - 2] + q.skip()[s]);
                sum += q.log_prob(t, s) - most;
                q.row(t)[s] = q.alpha[t * q.L + s] = sum;
                largest = maximum(largest, sum);
            }
            taken += most;
            most = finite_or_0(block_max(largest, scratch));  // this also synchronises the threads
        }
        const ACC* end = q.row(q.T - 1) + q.L;
        if (threadIdx.x == 0) loss[b] = q.T ? -(log_sum(end[-1], end[-2], nothing) + taken) : q.L > 1 ? -nothing : 0;
    }
}

// scale    (B)        the gradient of each loss; 0 if the loss is infinite
// dlogits  (T, B, C)  out; 0 after a sequence's end
extern "C" __global__ void ctc_gradient(
    const ACC* __restrict__ log_probs, const long long* __restrict__ targets, const long long* __restrict__ lengths,
    ACC* alpha, ACC* rows, long long* classes, const ACC* __restrict__ scale, ACC* dlogits, long long T, long long B,
    long long C, long long S, long long blank)
{
    __shared__ ACC scratch[THREADS];
    const ACC nothing = log_((ACC)0);
    for (long long b = blockIdx.x; b < B; b += gridDim.x) {
        const Sequence<ACC> q({log_probs, targets, lengths, alpha, rows, classes, T, B, C, S, blank}, b);
        prepare(q);
        ACC most = 0, *share = q.share();
        for (long long t = T - 1; t >= 0; t--) {
            ACC* gradient = dlogits + (t * B + b) * C;
            if (t >= q.T || scale[b] == 0) {
                for EACH (c, C) gradient[c] = 0;
                continue;
            }
            const ACC* behind = q.row(t + 1);  // beta + log p of the next step
            ACC largest = nothing, share_largest = nothing, sum = 0, blanks = 0;
            for EACH (s, q.L) {
                ACC beta = s + 2 < q.L ? nothing : 0;
                if (t + 1 < q.T) beta = log_sum(behind[s], behind[s + 1], behind[s + 2] + q.skip()[s + 2]);
                q.row(t)[s] = beta + q.log_prob(t, s) - most;
                share[s] = q.alpha[t * q.L + s] + beta;
                largest = maximum(largest, q.row(t)[s]);
                share_largest = maximum(share_largest, share[s]);
            }
            most = finite_or_0(block_max(largest, scratch));
            share_largest = block_max(share_largest, scratch);
            for EACH (s, q.L) {
                share[s] = exp_(share[s] - share_largest);
                sum += share[s];
                if (s % 2 == 0) blanks += share[s];
            }
            const ACC part = scale[b] / block_sum(sum, scratch);
            for EACH (c, C) gradient[c] = scale[b] * exp_(q.log_probs[t * q.stride + c]);
            blanks = block_sum(blanks, scratch);  // this also synchronises the threads
            if (threadIdx.x == 0) gradient[blank] -= part * blanks;
            for EACH (s, q.L) {  // the first position of a class adds up those of all its positions
                if (s % 2 == 0) continue;
                bool first = true;
                for (long long other = 1; other < s; other += 2) first = first && q.classes[other] != q.classes[s];
                ACC all = 0;
                for (long long other = s; first && other < q.L; other += 2)
                    if (q.classes[other] == q.classes[s]) all += share[other];
                if (first) gradient[q.classes[s]] -= part * all;
            }
            __syncthreads();
        }
    }
}
