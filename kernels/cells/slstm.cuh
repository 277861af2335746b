// The sLSTM, with the names of gpulstm/cells/slstm.py, which explains why m begins with z_i and n needs no guard.
//
//     m = max(log sigmoid(z_f) + m_prev, z_i), z_i where n_prev is 0          z = x W_ih' + h_prev W_hh' + b
//     i = exp(z_i - m);  f = exp(log sigmoid(z_f) + m_prev - m);  z = tanh(z_z);  o = sigmoid(z_o)
//     c = f * c_prev + i * z;  n = f * n_prev + i
//     h = o * c / n                                                           Beck et al. 2024, eq. 8-17
//
// The cell keeps the pre-activations, since i and f may be too small for a half type. Forward uses them as they are
// stored, so that both passes have the same c and n. Gradients through m cancel only then.

#pragma once

#include "cell.cuh"

struct Slstm : Cell {
    static constexpr int gates = 4, states = 4, kept = 4;  // states h, c, n, m
    static constexpr int largest = 8;                      // limit of log f
    using Cell::Cell;

    // The stabilised exponents, with which both passes begin.
    template <class V> struct Exponents {
        V m, log_i, log_f;  // log_f before it is limited to `largest`
    };

    template <class V> FN Exponents<V> exponents(V z_i, V z_f, const V* before) const {
        V n_prev = before[2], m_prev = before[3];
        V log_sigmoid = minimum(z_f, number<V>(0)) - log1p_(exp_(-absolute(z_f)));
        V log_old = log_sigmoid + m_prev;
        V m = where((n_prev == number<V>(0)) | (z_i >= log_old), z_i, log_old);
        return {m, z_i - m, log_old - m};
    }

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V z_i = stored(zx[0] + zr[0]), z_f = stored(zx[1] + zr[1]);
        V z_z = stored(zx[2] + zr[2]), z_o = stored(zx[3] + zr[3]);
        Exponents<V> x = exponents(z_i, z_f, before);
        V i = exp_(x.log_i), f = exp_(minimum(x.log_f, number<V>(largest)));
        V c = f * before[1] + i * tanh_(z_z), n = f * before[2] + i;
        after[0] = sigmoid(z_o) * (c / n);
        after[1] = c;
        after[2] = n;
        after[3] = x.m;
        keep[0] = z_i;
        keep[1] = z_f;
        keep[2] = z_z;
        keep[3] = z_o;
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        V zero = number<V>(0), z_i = keep[0], z_f = keep[1], c_prev = before[1], n_prev = before[2];
        Exponents<V> x = exponents(z_i, z_f, before);
        auto from_i = x.m == z_i;  // if both are equal, z_i gets the gradient
        auto free = x.log_f <= number<V>(largest);
        V i = exp_(x.log_i), f = exp_(minimum(x.log_f, number<V>(largest)));
        V z = tanh_(keep[2]), o = sigmoid(keep[3]);
        V n = f * n_prev + i, mean = (f * c_prev + i * z) / n;

        V dh = d[0], dmean = dh * o / n;
        V dc = d[1] + dmean, dn = d[2] - dmean * mean;
        V dlog_i = (dc * z + dn) * i;
        V dlog_f = where(free, (dc * c_prev + dn * n_prev) * f, zero);
        V dm = d[3] - dlog_i - dlog_f;  // the gradient of the maximum
        V dlog_old = dlog_f + where(from_i, zero, dm);
        dzx[0] = dlog_i + where(from_i, dm, zero);
        dzx[1] = dlog_old * sigmoid(-z_f);  // the slope of log sigmoid
        dzx[2] = dc * i * (1 - z * z);
        dzx[3] = dh * mean * o * (1 - o);
        d[1] = dc * f;
        d[2] = dn * f;
        d[3] = dlog_old;
    }
};
