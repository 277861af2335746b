// The minimal LSTM and GRU over a whole sequence on the processor, forward and backward, without the products.
//
// The arithmetic is in kernels/cells/minlstm.cuh and mingru.cuh. The head of kernels/scan.cu describes the computation
// and the arrays. Steps are computed one after another, so that arrays are read and written from one end to the other.
// Threads share the units, and none waits for another.

#include <string.h>

#include "exported.h"
#include "math.cuh"
#include "share.h"

namespace GPULSTM_ISA {
#include "cells/mingru.cuh"
#include "cells/minlstm.cuh"

namespace {  // since the objects for float and for double share the namespace of the instruction set

using V = Vector<REAL>;

// Arrays are contiguous; y, dy and alive and clear may be null, as in scan.cu.
struct Scan {
    const REAL *zx, *b_ih;
    const bool *alive, *clear;
    long long T, B, H, reverse;
    REAL *hs, *y;
    const REAL* dy;
    REAL *dzx, *dh;  // dh (B, H): the gradient of the state between two steps of backward
};

// One vector of units at one step of one sequence.
template <class Cell> struct Place {
    const Scan& a;
    const long long b, unit, row, at, count;  // row of (T, B), element of (T, B, H); how many units are left of H
    const bool counts, cleared;

    FN Place(const Scan& a, long long t, long long b, long long unit)
        : a(a), b(b), unit(unit), row(t * a.B + b), at(row * a.H + unit), count(a.H - unit),
          counts(!a.alive || a.alive[row]), cleared(a.clear && a.clear[row]) {}

    FN Coefficients<V> coefficients() const {
        V z[Cell::gates];
        for (int gate = 0; gate < Cell::gates; gate++) {
            z[gate] = load<V>(a.zx + (row * Cell::gates + gate) * a.H + unit, count);
            if (a.b_ih) z[gate] += load<V>(a.b_ih + gate * a.H + unit, count);
        }
        return Cell::coefficients(z);
    }

    FN V h_prev() const { return cleared ? V{} : load<V>(a.hs + at + (a.reverse ? a.B * a.H : 0), count); }

    FN void forward() const {
        V h = h_prev();
        if (counts) {
            const Coefficients<V> c = coefficients();
            h = c.keep * h + c.take * c.n;
        }
        store(a.hs + at + (a.reverse ? 0 : a.B * a.H), h, count);
        if (a.y) store(a.y + at, counts ? h : V{}, count);
    }

    FN void backward() const {
        REAL* between = a.dh + b * a.H + unit;
        V dh = load<V>(between, count), dz[Cell::gates] = {};
        if (counts) {
            if (a.dy) dh += load<V>(a.dy + at, count);
            const Coefficients<V> c = coefficients();  // computed again, which costs less than storing them
            Cell::gradients(c, h_prev(), dh, dz);
            dh *= c.keep;
        }
        for (int gate = 0; gate < Cell::gates; gate++)
            store(a.dzx + (row * Cell::gates + gate) * a.H + unit, dz[gate], count);
        store(between, cleared ? V{} : dh, count);
    }
};

// Calls work(place) for every vector of units at every step, forwards or backwards in time.
template <class Cell, class Work> void scan(const Scan& a, bool upwards, const Work& work) {
    const long long lanes = Traits<V>::lanes, vectors = (a.H + lanes - 1) / lanes;
    share(a.B * vectors, a.T * a.B * a.H * Cell::gates, [&](long long first, long long last) {
        for (long long s = 0; s < a.T; s++) {
            const long long t = upwards ? s : a.T - 1 - s;
            long long b = first / vectors, unit = first % vectors * lanes;
            for (long long k = first; k < last; k++) {
                work(Place<Cell>(a, t, b, unit));
                unit += lanes;
                if (unit >= a.H) unit = 0, b++;
            }
        }
    });
}

template <class Cell> void forward(const Scan& a) {
    scan<Cell>(a, !a.reverse, [](const Place<Cell>& place) { place.forward(); });
}

template <class Cell> void backward(const Scan& a, const REAL* dh_n) {
    const size_t bytes = a.B * a.H * sizeof(REAL);
    dh_n ? memcpy(a.dh, dh_n, bytes) : memset(a.dh, 0, bytes);
    scan<Cell>(a, a.reverse, [](const Place<Cell>& place) { place.backward(); });
}

}  // namespace
}  // namespace GPULSTM_ISA

// The parameters are those of scan.cu's entries with the same names, without chunks.
#define ENTRIES(name, Cell)                                                                                          \
    EXPORTED void ENTRY(name##_forward)(                                                                             \
        const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, long long T, long long B,            \
        long long H, long long reverse, REAL* hs, REAL* y)                                                           \
    {                                                                                                                \
        GPULSTM_ISA::forward<Cell>({zx, b_ih, alive, clear, T, B, H, reverse, hs, y, nullptr, nullptr, nullptr});    \
    }                                                                                                                \
    EXPORTED void ENTRY(name##_backward)(                                                                            \
        const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, REAL* hs, const REAL* dy,            \
        const REAL* dh_n, long long T, long long B, long long H, long long reverse, REAL* dzx, REAL* dh0)            \
    {                                                                                                                \
        GPULSTM_ISA::backward<Cell>({zx, b_ih, alive, clear, T, B, H, reverse, hs, nullptr, dy, dzx, dh0}, dh_n);    \
    }
ENTRIES(minlstm, GPULSTM_ISA::MinLstm)
ENTRIES(mingru, GPULSTM_ISA::MinGru)
