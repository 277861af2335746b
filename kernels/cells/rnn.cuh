// The simple recurrent network, with the names of gpulstm/cells/rnn.py.
//
//     h = activation(z)                     z = x W_ih' + h_prev W_hh' + b                            Elman 1990
//
// The cell keeps z. Its options are those of the activation.

#pragma once

#include "activation.cuh"
#include "cell.cuh"

struct Rnn : Cell {
    static constexpr int gates = 1, states = 1, kept = 1, options = Activation::options;
    Activation activation;

    FN explicit Rnn(const double* o) : Cell(o), activation(o) {}

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V z = stored(zx[0] + zr[0]);
        after[0] = activation.activate(z);
        keep[0] = z;
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        dzx[0] = d[0] * activation.slope(keep[0]);
    }
};
