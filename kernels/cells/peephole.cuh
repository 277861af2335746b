// The LSTM with peepholes, with the names of gpulstm/cells/peephole.py.
//
//     i, f = sigmoid(z_i + p_i * c_prev), sigmoid(z_f + p_f * c_prev);  g = tanh(z_g)
//     c = f * c_prev + i * g                                          z = x W_ih' + h_prev W_hh' + b
//     o = sigmoid(z_o + p_o * c)
//     h = o * tanh(c)                                                 Gers & Schmidhuber 2000
//
// The cell keeps i, f, g and o.

#pragma once

#include "cell.cuh"
#include "cells/lstm.cuh"

// Diagonal peepholes; e holds p_i, p_f and p_o.
struct Peephole : Cell {
    static constexpr int gates = 4, states = 2, kept = 4, vectors = 3;
    using Cell::Cell;

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V p_i = e[0], p_f = e[1], p_o = e[2], c_prev = before[1];
        V i = sigmoid(zx[0] + zr[0] + p_i * c_prev), f = sigmoid(zx[1] + zr[1] + p_f * c_prev);
        V g = tanh_(zx[2] + zr[2]);
        V c = f * c_prev + i * g;
        V o = sigmoid(zx[3] + zr[3] + p_o * c);
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
        V p_i = e[0], p_f = e[1], p_o = e[2];
        V c = f * c_prev + i * g, tanh_c = tanh_(c);
        V dh = d[0], dz_o = dh * tanh_c * o * (1 - o);
        V dc = d[1] + dh * o * (1 - tanh_c * tanh_c) + dz_o * p_o;
        V dz_i = dc * g * i * (1 - i), dz_f = dc * c_prev * f * (1 - f);
        dzx[0] = dz_i;
        dzx[1] = dz_f;
        dzx[2] = dc * i * (1 - g * g);
        dzx[3] = dz_o;
        d[1] = dc * f + dz_i * p_i + dz_f * p_f;
        de[0] = dz_i * c_prev;
        de[1] = dz_f * c_prev;
        de[2] = dz_o * c;
    }
};

// Full peepholes: matrices in place of p_i, p_f and p_o. zr contains their products; the product of the o gate is
// computed in the middle of the step.
struct PeepholeFull : Cell {
    static constexpr int gates = 4, states = 2, kept = 4;
    static constexpr bool inner = true;
    Lstm lstm;

    FN explicit PeepholeFull(const double* options) : Cell(options), lstm(options) {}

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        lstm.forward(zx, zr, before, e, after, keep);
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        lstm.backward(keep, before, e, d, dzx, dzr, de);
    }

    // The factor of the o gate's matrix: c.
    template <class V> FN V inner_forward(const V* zx, const V* zr, const V* before, const V* e) const {
        V i = sigmoid(zx[0] + zr[0]), f = sigmoid(zx[1] + zr[1]), g = tanh_(zx[2] + zr[2]);
        return f * before[1] + i * g;
    }

    // Adds the gradient dc that reaches c through the o gate. All gradients but dz_o are linear in it.
    template <class V>
    FN void inner_backward(const V* keep, const V* before, const V* e, V dc, V* d, V* dz) const {
        V i = keep[0], f = keep[1], g = keep[2];
        dz[0] += dc * g * i * (1 - i);
        dz[1] += dc * before[1] * f * (1 - f);
        dz[2] += dc * i * (1 - g * g);
        d[1] += dc * f;
    }
};
