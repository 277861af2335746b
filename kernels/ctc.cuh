// The parts of connectionist temporal classification (Graves et al. 2006); ctc.cu puts them together.
//
// There is a blank before, between and after the targets of a sequence: position 0 <= s < L = 2S + 1 is the blank if s
// is even, and target s / 2 if s is odd. A path goes from one of the first two positions to one of the last two. In
// each step it stays, moves on by one position, or moves on by two over a blank between two different targets.
#pragma once

#include "math.cuh"

// x, or zero if x is infinite: infinity minus infinity would be NaN.
template <class V> FN V finite_or_0(V x) { return where(x - x == 0, x, V{}); }

// log(e^a + e^b + e^c); minus infinity if all three are.
template <class V> FN V log_sum(V a, V b, V c) {
    const V most = finite_or_0(maximum(a, maximum(b, c)));
    return most + log1p_((exp_(a - most) + exp_(b - most) + exp_(c - most)) - 1);
}

// log_probs  (T, B, C)
// targets    (B, S)         within their lengths 0 <= target < C and not the blank, which the caller has checked
// lengths    (2, B)         each sequence's numbers of steps and targets
// alpha      (B, T, L)      each sequence's own steps one after the other, each with that sequence's positions
// rows       (B, 4, L + 4)  scratch
// classes    (B, L)         scratch
template <class Real> struct Batch {
    const Real* log_probs;
    const long long *targets, *lengths;
    Real *alpha, *rows;
    long long* classes;
    long long T, B, C, S, blank;
};

// One sequence of a batch.
template <class Real> struct Sequence {
    static constexpr long long margin = 2;  // positions before the first and after the last, of probability 0
    // The numbers of steps, classes and positions; the elements from one step to the next, and in a row with margins.
    const long long T, C, L, stride, width;
    const Real* log_probs;
    const long long* targets;
    const long long blank;
    Real *alpha, *rows;
    long long* classes;  // of each position

    FN Sequence(const Batch<Real>& a, long long b)
        : T(a.lengths[b]), C(a.C), L(2 * a.lengths[a.B + b] + 1), stride(a.B * a.C), width(L + 2 * margin),
          log_probs(a.log_probs + b * a.C), targets(a.targets + b * a.S), blank(a.blank),
          alpha(a.alpha + b * a.T * (2 * a.S + 1)), rows(a.rows + b * 4 * (2 * a.S + 1 + 2 * margin)),
          classes(a.classes + b * (2 * a.S + 1)) {}

    FN Real* row(long long t) const { return rows + t % 2 * width + margin; }  // of step t; two rows take turns
    FN Real* skip() const { return rows + 2 * width + margin; }  // 0 where a path may come from s - 2, else -infinity
    FN Real* share() const { return rows + 3 * width + margin; }

    // Must be called first, for every 0 <= k < width.
    FN void prepare(long long k) const {
        const Real nothing = log_((Real)0);
        const long long s = k - margin;
        rows[k] = rows[width + k] = nothing;
        const bool odd = s > 0 && s < L && s % 2;
        rows[2 * width + k] = odd && s > 1 && targets[s / 2] != targets[s / 2 - 1] ? 0 : nothing;
        if (s >= 0 && s < L) classes[s] = odd ? targets[s / 2] : blank;
    }

    FN Real log_prob(long long t, long long s) const { return log_probs[t * stride + classes[s]]; }
};
