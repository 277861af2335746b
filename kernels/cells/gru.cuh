// The gated recurrent unit, with the names of gpulstm/cells/gru.py.
//
//     r, z = f(z_r), f(z_z)                 z_r, z_z = x W_ih' + h_prev W_hh' + b
//     n = g(z_n)                            z_n = x_n + r * q, q = h_prev U_n' + b_hn      Gru: cuDNN, PyTorch
//                                           z_n = x_n + (r * h_prev) U_n' + b_hn           GruBefore: Cho 2014
//     h = z * h_prev + (1 - z) * n, or with update "cho" (1 - z) * h_prev + z * n
//
// The cell keeps z_r, z_z and z_n, and Gru also keeps q. The options are those of f, those of g, and 1 for "cho" or 0.

#pragma once

#include "activation.cuh"
#include "cell.cuh"

// The part that both forms share.
struct GruUpdate {
    static constexpr int options = 2 * Activation::options + 1;
    Activation f, g;
    bool cho;

    FN explicit GruUpdate(const double* o)
        : f(o), g(o + Activation::options), cho(o[2 * Activation::options] != 0) {}

    // The share of h_prev in h.
    template <class V> FN V old_share(V z) const { return cho ? 1 - z : z; }

    // Returns h, and writes the pre-activations to keep[0..2].
    template <class V> FN V forward(V z_r, V z_z, V z_n, V h_prev, V* keep) const {
        keep[0] = z_r;
        keep[1] = z_z;
        keep[2] = z_n;
        V old = old_share(f.activate(z_z));
        return old * h_prev + (1 - old) * g.activate(z_n);
    }

    // Writes dz[1] and dz[2]. d[0] is dh at first, and then the gradient of h_prev without its product.
    template <class V> FN void backward(const V* keep, V h_prev, V* d, V* dz) const {
        V z_z = keep[1], z_n = keep[2], dh = d[0];
        V old = old_share(f.activate(z_z)), n = g.activate(z_n);
        V d_old = dh * (h_prev - n);
        dz[1] = (cho ? -d_old : d_old) * f.slope(z_z);
        dz[2] = dh * (1 - old) * g.slope(z_n);
        d[0] = dh * old;
    }
};

struct Gru : Cell {
    static constexpr int gates = 3, states = 1, kept = 4, options = GruUpdate::options;
    static constexpr bool split = true, direct = true;
    GruUpdate update;

    FN explicit Gru(const double* o) : Cell(o), update(o) {}

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V z_r = stored(zx[0] + zr[0]), z_z = stored(zx[1] + zr[1]), q = stored(zr[2]);
        V z_n = stored(zx[2] + update.f.activate(z_r) * q);
        after[0] = update.forward(z_r, z_z, z_n, before[0], keep);
        keep[3] = q;
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        V z_r = keep[0], q = keep[3];
        update.backward(keep, before[0], d, dzx);
        dzx[0] = dzx[2] * q * update.f.slope(z_r);
        dzr[0] = dzx[0];
        dzr[1] = dzx[1];
        dzr[2] = dzx[2] * update.f.activate(z_r);
    }
};

struct GruBefore : Cell {
    static constexpr int gates = 3, states = 1, kept = 3, options = GruUpdate::options;
    static constexpr bool direct = true, inner = true;
    GruUpdate update;

    FN explicit GruBefore(const double* o) : Cell(o), update(o) {}

    // The factor of U_n: r * h_prev.
    template <class V> FN V inner_forward(const V* zx, const V* zr, const V* before, const V* e) const {
        return update.f.activate(stored(zx[0] + zr[0])) * before[0];
    }

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V z_r = stored(zx[0] + zr[0]), z_z = stored(zx[1] + zr[1]), z_n = stored(zx[2] + zr[2]);
        after[0] = update.forward(z_r, z_z, z_n, before[0], keep);
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        update.backward(keep, before[0], d, dzx);
        dzx[0] = number<V>(0);
    }

    template <class V>
    FN void inner_backward(const V* keep, const V* before, const V* e, V dv, V* d, V* dz) const {
        V z_r = keep[0];
        dz[0] += dv * before[0] * update.f.slope(z_r);
        d[0] += dv * update.f.activate(z_r);
    }
};
