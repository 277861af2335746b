// The LSTM with coupled gates, with the names of gpulstm/cells/coupled.py.
//
//     f, o = sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)                       z = x W_ih' + h_prev W_hh' + b
//     c = f * c_prev + (1 - f) * g
//     h = o * tanh(c)                                                         Greff et al. 2017, CIFG
//
// The cell keeps f, g and o.

#pragma once

#include "cell.cuh"

struct Coupled : Cell {
    static constexpr int gates = 3, states = 2, kept = 3;
    using Cell::Cell;

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V f = sigmoid(zx[0] + zr[0]), g = tanh_(zx[1] + zr[1]), o = sigmoid(zx[2] + zr[2]);
        V c = f * before[1] + (1 - f) * g;
        after[0] = o * tanh_(c);
        after[1] = c;
        keep[0] = f;
        keep[1] = g;
        keep[2] = o;
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        V f = keep[0], g = keep[1], o = keep[2], c_prev = before[1];
        V tanh_c = tanh_(f * c_prev + (1 - f) * g);
        V dh = d[0], dc = d[1] + dh * o * (1 - tanh_c * tanh_c);
        dzx[0] = dc * (c_prev - g) * f * (1 - f);
        dzx[1] = dc * (1 - f) * (1 - g * g);
        dzx[2] = dh * tanh_c * o * (1 - o);
        d[1] = dc * f;
    }
};
