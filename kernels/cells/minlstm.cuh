// The minimal LSTM, with the names of gpulstm/cells/minlstm.py, which explains why no digits are lost.
//
//     keep = f / (f + i), take = i / (f + i);  f, i = sigmoid(z_f), sigmoid(z_i);  n = z_n
//                                                                                     Feng et al. 2024, section 3.2
#pragma once

#include "scanned.cuh"

struct MinLstm : Scanned {
    static constexpr int gates = 3;

    template <class V> FN static Coefficients<V> coefficients(const V* z) {
        V z_f = z[0], z_i = z[1], n = z[2];
        V least = minimum(minimum(z_f, z_i), number<V>(0));
        V one = exp_(least), u = exp_(least - z_i), v = exp_(least - z_f);  // 1, e^-z_i, e^-z_f, times a common factor
        V scale = 1 / (one + one + u + v);
        return {(one + u) * scale, (one + v) * scale, n, u * scale, v * scale};
    }

    template <class V> FN static void gradients(const Coefficients<V>& c, V h_prev, V dh, V* dz) {
        V dkeep = dh * (h_prev - c.n);
        dz[0] = dkeep * c.keep * c.v;
        dz[1] = -dkeep * c.take * c.u;
        dz[2] = dh * c.take;
    }
};
