// The activations that a cell can use, and their slopes, with the names of gpulstm/cells/activation.py.

#pragma once

#include "math.cuh"

enum ActivationKind {
    RELU, TANH, SIGMOID, AFFINE, LEAKY_RELU, THRESHOLDED_RELU, SCALED_TANH, HARD_SIGMOID, ELU, SOFTSIGN, SOFTPLUS
};

// One activation, given by four numbers (Activation.numbers in Python): the kind, alpha, beta, and the clip, 0 for
// none. The kind is the same for all elements of a vector. On a GPU the numbers are compile-time constants, so that no
// switch remains.
struct Activation {
    static constexpr int options = 4;
    ActivationKind kind;
    double alpha, beta, clip;

    FN explicit Activation(const double* o) : kind((ActivationKind)(int)o[0]), alpha(o[1]), beta(o[2]), clip(o[3]) {}

    // The activation of the pre-activation z.
    template <class V> FN V activate(V z) const {
        if (clip == 0 && kind == SIGMOID) return sigmoid(z);
        if (clip == 0 && kind == TANH) return tanh_(z);
        return of(clipped(z));
    }

    // Its derivative at z: at a kink the one from the left, zero where z was clipped.
    template <class V> FN V slope(V z) const {
        if (clip == 0) return slope_of(z);
        V limit = number<V>(clip);
        return where(absolute(z) <= limit, slope_of(clipped(z)), number<V>(0));
    }

private:
    // z limited to [-clip, clip].
    template <class V> FN V clipped(V z) const {
        if (clip == 0) return z;
        V limit = number<V>(clip);
        return where(z > limit, limit, where(z < -limit, -limit, z));
    }

    template <class V> RARE V of(V z) const {
        V zero = number<V>(0), one = number<V>(1), a = number<V>(alpha), b = number<V>(beta);
        switch (kind) {
            case RELU: return where(z > zero, z, zero);
            case TANH: return tanh_(z);
            case SIGMOID: return sigmoid(z);
            case AFFINE: return a * z + b;
            case LEAKY_RELU: return where(z > zero, z, a * z);
            case THRESHOLDED_RELU: return where(z >= a, z, zero);
            case SCALED_TANH: return a * tanh_(b * z);
            case HARD_SIGMOID: {
                V y = a * z + b;
                return where(y < zero, zero, where(y > one, one, y));
            }
            case ELU: return where(z > zero, z, a * expm1_(z));
            case SOFTSIGN: return z / (1 + absolute(z));
            default: return where(z > zero, z, zero) + log1p_(exp_(-absolute(z)));  // SOFTPLUS
        }
    }

    template <class V> FN V slope_of(V z) const {
        if (kind != SIGMOID && kind != TANH) return other_slope_of(z);
        V y = kind == SIGMOID ? sigmoid(z) : tanh_(z);
        return kind == SIGMOID ? y * (1 - y) : 1 - y * y;
    }

    template <class V> RARE V other_slope_of(V z) const {
        V zero = number<V>(0), one = number<V>(1), a = number<V>(alpha), b = number<V>(beta);
        switch (kind) {
            case RELU: return where(z > zero, one, zero);
            case AFFINE: return a;
            case LEAKY_RELU: return where(z > zero, one, a);
            case THRESHOLDED_RELU: return where(z >= a, one, zero);
            case SCALED_TANH: {
                V y = tanh_(b * z);
                return a * b * (1 - y * y);
            }
            case HARD_SIGMOID: {
                V y = a * z + b;
                return where((y > zero) & (y < one), a, zero);
            }
            case ELU: return where(z > zero, one, a * exp_(z));
            case SOFTSIGN: {
                V y = 1 / (1 + absolute(z));
                return y * y;
            }
            default: return sigmoid(z);  // SOFTPLUS
        }
    }
};
