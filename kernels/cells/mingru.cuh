// The minimal GRU, with the names of gpulstm/cells/mingru.py.
//
//     keep = 1 - z, take = z;  z = sigmoid(z_z);  n = z_n                             Feng et al. 2024, section 3.1
#pragma once

#include "scanned.cuh"

struct MinGru : Scanned {
    static constexpr int gates = 2;

    template <class V> FN static Coefficients<V> coefficients(const V* z) {
        V z_z = z[0], n = z[1];
        V least = minimum(z_z, number<V>(0));
        V one = exp_(least), u = exp_(least - z_z);  // 1 and e^-z_z, times a common factor
        V scale = 1 / (one + u);
        return {u * scale, one * scale, n, V{}, V{}};
    }

    template <class V> FN static void gradients(const Coefficients<V>& c, V h_prev, V dh, V* dz) {
        dz[0] = dh * (c.n - h_prev) * c.keep * c.take;
        dz[1] = dh * c.take;
    }
};
