// The LSTM with layer normalisation, with the names of gpulstm/cells/layer_norm.py.
//
//     z = norm_ih * LN(x W_ih') + norm_hh * LN(h_prev W_hh') + bias
//     i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)
//     c = f * c_prev + i * g
//     h = o * tanh(norm_c * LN(c) + bias_c)                          Ba, Kiros & Hinton 2016, eq. 20-22; Haste
//
// e holds norm_ih, norm_hh and bias, four numbers each, then norm_c and bias_c.

#pragma once

#include "cell.cuh"

struct LayerNorm : Cell {
    static constexpr int gates = 4, states = 2, kept = 8, vectors = 14;
    static constexpr bool split = true, normed = true;
    static constexpr double eps = 1e-5;
    using Cell::Cell;

    template <class V> FN void gates_of(const V* x_hat, const V* r_hat, const V* e, V* g) const {
        const V *norm_ih = e, *norm_hh = e + 4, *bias = e + 8;
        for (int k = 0; k < gates; ++k) {
            V z = norm_ih[k] * x_hat[k] + norm_hh[k] * r_hat[k] + bias[k];
            g[k] = k == 2 ? tanh_(z) : sigmoid(z);
        }
    }

    template <class V> FN V state(const V* g, const V* before) const { return g[1] * before[1] + g[0] * g[2]; }

    template <class V> FN V output(const V* g, V c_hat, const V* e) const {
        V norm_c = e[12], bias_c = e[13];
        return g[3] * tanh_(norm_c * c_hat + bias_c);
    }

    template <class V>
    FN void output_backward(const V* g, V c_hat, const V* e, V dh, V& d_hat, V* dz, V* de) const {
        V o = g[3], norm_c = e[12], bias_c = e[13];
        V tanh_c = tanh_(norm_c * c_hat + bias_c);
        V dv = dh * o * (1 - tanh_c * tanh_c);  // v = norm_c * c_hat + bias_c
        d_hat = dv * norm_c;
        dz[3] = dh * tanh_c * o * (1 - o);
        de[12] = dv * c_hat;
        de[13] = dv;
    }

    template <class V>
    FN void state_backward(
        const V* g, const V* before, const V* x_hat, const V* r_hat, const V* e, V dc, V* d, V* dz, V* dx_hat,
        V* dr_hat, V* de) const
    {
        V i = g[0], f = g[1], c_prev = before[1];
        const V *norm_ih = e, *norm_hh = e + 4;
        dz[0] = dc * g[2] * i * (1 - i);
        dz[1] = dc * c_prev * f * (1 - f);
        dz[2] = dc * i * (1 - g[2] * g[2]);
        d[1] = dc * f;
        for (int k = 0; k < gates; ++k) {
            dx_hat[k] = dz[k] * norm_ih[k];
            dr_hat[k] = dz[k] * norm_hh[k];
            de[k] = dz[k] * x_hat[k];
            de[4 + k] = dz[k] * r_hat[k];
            de[8 + k] = dz[k];
        }
    }
};
