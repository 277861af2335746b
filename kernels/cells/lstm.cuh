// The LSTM of PyTorch, cuDNN and Keras, with the names of gpulstm/cells/lstm.py.
//
//     i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)      z = x W_ih' + h_prev W_hh' + b
//     c = f * c_prev + i * g
//     h = o * tanh(c)                       Hochreiter & Schmidhuber 1997 with the forget gate of Gers 2000
//
// The cell keeps i, f, g and o.

#pragma once

#include "cell.cuh"

struct Lstm : Cell {
    static constexpr int gates = 4, states = 2, kept = 4;
    using Cell::Cell;

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V i = sigmoid(zx[0] + zr[0]), f = sigmoid(zx[1] + zr[1]);
        V g = tanh_(zx[2] + zr[2]), o = sigmoid(zx[3] + zr[3]);
        V c = f * before[1] + i * g;
        after[0] = o * tanh_(c);
        after[1] = c;
        keep[0] = i;
        keep[1] = f;
        keep[2] = g;
        keep[3] = o;
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        V i = keep[0], f = keep[1], g = keep[2], o = keep[3], c_prev = before[1];
        V tanh_c = tanh_(f * c_prev + i * g);
        V dh = d[0], dc = d[1] + dh * o * (1 - tanh_c * tanh_c);
        dzx[0] = dc * g * i * (1 - i);
        dzx[1] = dc * c_prev * f * (1 - f);
        dzx[2] = dc * i * (1 - g * g);
        dzx[3] = dh * tanh_c * o * (1 - o);
        d[1] = dc * f;
    }
};
