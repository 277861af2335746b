// The arguments of a call of the engine, and the memory layout of everything that belongs to one sequence.
//
// S is float or double, V a vector of W of them. T steps, B sequences, D inputs, H units, P outputs (H, or the size of
// the projection). The caller's arrays are C-contiguous. The engine computes units in blocks of W. Arrays that it lays
// out itself are padded to whole blocks: H units take U blocks, which are Hp = U * W numbers.

constexpr int MOST_STATES = 8, MOST_PRODUCTS = 8;

// One product of every step: gates first .. first + gates of zr receive source times the transposed rows of weight.
struct Product {
    Size source;         // the number of a state, taken before the step, or INNER
    Size first, gates;   // in blocks of H
    Size dropped;        // for INNER: whether recurrent dropout acts on the factor (it always does on h_prev)
    const void* weight;  // (gates * H, P for source 0, else H)
    void* dweight;       // out of backward, null if it is not wanted
};
constexpr Size INNER = -1;

// gpulstm/functional/engine_loop.py has the same fields in the same order. Null means absent, zero, or not wanted.
struct Args {
    Size T, B, D, H, P, threads, reverse, training, products;
    const double* options;
    const void *x, *w_ih, *b_ih, *b_hh, *w_hr, *vectors;  // (T, B, D), (G*H, D), (G*H), (G*H), (P, H), (vectors, H)
    const void* first[MOST_STATES];                       // states before the first step: h (B, P), others (B, H)
    const unsigned char *alive, *clear;                   // (T, B)
    const void *keep_h, *keep_states;                     // shares of the old states: (B, P), (B, H) for each step
    Size keep_h_step, keep_states_step;                   // elements from one step to the next, 0: the same for all
    const void* dropped;                                  // (B, P): factors of h_prev in its product
    Product product[MOST_PRODUCTS];
    void *y, *last[MOST_STATES];  // out: (T, B, P) and the states after the last step
    void *saved, *scratch;        // buffers of the sizes that a SIZES call returns
    Size saved_bytes, forward_bytes, backward_bytes;  // out of SIZES
    Size used_up;  // out of SIZES: whether backward overwrites what is saved, so that it can run only once
    const void *dy, *dlast[MOST_STATES];
    void *dx, *dw_ih, *db_ih, *db_hh, *dw_hr, *dvectors, *dfirst[MOST_STATES];
};

// Allocates parts of one block of memory, or, without a block, counts the bytes that they would take.
class Carver {
    char* start;
    Size used = 0;

  public:
    static constexpr Size alignment = 64;
    explicit Carver(void* memory)
        : start(memory ? (char*)(((Size)memory + alignment - 1) / alignment * alignment) : nullptr) {}
    template <class S> S* take(Size count) {
        Size at = used;
        used += (count * (Size)sizeof(S) + alignment - 1) / alignment * alignment;
        return start ? (S*)(start + at) : nullptr;
    }
    Size bytes() const { return used + alignment; }
};

inline Size blocks_of(Size n, Size size) { return (n + size - 1) / size; }

// The part of n items that belongs to one of several threads.
struct Share {
    Size begin, end;
    Share(Size n, int thread, int threads) : begin(n * thread / threads), end(n * (thread + 1) / threads) {}
    Size count() const { return end - begin; }
};

// A cell's properties, and its code for one instruction set and type (steps.h, normed.h).
template <class V> struct Forward;
template <class V> struct Backward;
template <class V> struct Code {
    Size gates, states, vectors, kept;
    bool split, direct, inner, normed;
    void (*normalise_input)(Forward<V>&, int thread, int threads, Size t0, Size steps);
    void (*multiplied)(Forward<V>&, int thread, Size step, const Scalar<V>* zx);
    void (*forward)(Forward<V>&, int thread, int threads, Size step, Size block, Size blocks, const Scalar<V>* zx);
    void (*backward)(Backward<V>&, int thread, int threads, Size step);
    void (*inner_backward)(Backward<V>&, int thread, Size step);
};

// What both passes know of a sequence, and what forward keeps for backward. In inference forward keeps only what one
// step passes to the next.
template <class V> struct Sequence {
    using S = Scalar<V>;
    static constexpr int W = lanes<V>;
    const Args& a;
    const Code<V>& code;
    const Size T, B, D, H, P, G, U, Hp, UP;
    const Size keep_row;  // numbers in a row of keep
    S *keep, *states, *hs, *inner, *cell_out, *moments;

    Sequence(const Args& a, const Code<V>& code, Carver& carve)
        : a(a), code(code), T(a.T), B(a.B), D(a.D), H(a.H), P(a.P), G(code.gates), U(blocks_of(H, W)), Hp(U * W),
          UP(blocks_of(P, W)), keep_row(Hp * code.kept) {
        Size all = a.training ? T * B : B;
        keep = carve.take<S>(a.training ? T * B * keep_row : 0);
        states = carve.take<S>((code.states - 1) * one_state());
        hs = carve.take<S>(a.alive ? (a.training ? T : 2) * B * P : 0);
        inner = carve.take<S>(code.inner ? all * Hp : 0);
        cell_out = carve.take<S>(a.w_hr ? all * H : 0);
        moments = carve.take<S>(code.normed ? all * 4 : 0);
    }

    Size time(Size step) const { return a.reverse ? T - 1 - step : step; }
    Size step_of(Size t) const { return a.reverse ? T - 1 - t : t; }
    bool alive(Size t, Size b) const { return !a.alive || a.alive[t * B + b]; }
    bool cleared(Size t, Size b) const { return a.clear && a.clear[t * B + b]; }
    Size valid(Size block, Size n) const { return n - block * W < W ? n - block * W : W; }  // used lanes of a block

    // h (B, P) before `step`, null for zero.
    const S* h_before(Size step) const {
        if (step == 0) return (const S*)a.first[0];
        return a.alive ? hs + (a.training ? step - 1 : (step - 1) % 2) * B * P : (const S*)a.y + time(step - 1) * B * P;
    }
    // State k > 0 (B, Hp) before a step.
    Size one_state() const { return (a.training ? T + 1 : 2) * B * Hp; }
    S* state(Size k, Size step) const { return states + (k - 1) * one_state() + (a.training ? step : step % 2) * B * Hp; }

    // The share of its old state that a unit keeps (zoneout).
    FN V share_of_h(Size t, Size b, Size u) const {
        return load<V>((const S*)a.keep_h + t * a.keep_h_step + b * P + u * W, valid(u, P));
    }
    FN V share_of_states(Size t, Size b, Size u) const {
        return load<V>((const S*)a.keep_states + t * a.keep_states_step + b * H + u * W, valid(u, H));
    }
};
