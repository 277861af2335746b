// The activations a cell can be given, and their slopes: gpulstm/cells/activation.py in CUDA, under the same names.
//
// A macro carries the choice, made by Activation.defines: -DACT_F=HARD_SIGMOID,0.2,0.5,3.0 is a kind, alpha,
// beta and clip (0 for none), so that activate(ACT_F, z) is a call whose switch the compiler takes out.

#include "common.cuh"

enum ActivationKind {
    RELU, TANH, SIGMOID, AFFINE, LEAKY_RELU, THRESHOLDED_RELU, SCALED_TANH, HARD_SIGMOID, ELU, SOFTSIGN, SOFTPLUS
};

__device__ inline float expm1_(float x) { return expm1f(x); }
__device__ inline double expm1_(double x) { return expm1(x); }
__device__ inline float log1p_(float x) { return log1pf(x); }
__device__ inline double log1p_(double x) { return log1p(x); }

// z limited to [-clip, clip], where clip is not 0.
__device__ inline ACC clipped(ACC clip, ACC z) {
    if (clip > 0 && z > clip) return clip;
    if (clip > 0 && z < -clip) return -clip;
    return z;
}

// The activation of one pre-activation z.
__device__ inline ACC activate(ActivationKind kind, ACC alpha, ACC beta, ACC clip, ACC z) {
    z = clipped(clip, z);
    ACC positive = z > 0 ? z : 0, magnitude = z > 0 ? z : -z;
    switch (kind) {
        case RELU: return positive;
        case TANH: return tanh_(z);
        case SIGMOID: return sigmoid(z);
        case AFFINE: return alpha * z + beta;
        case LEAKY_RELU: return z > 0 ? z : alpha * z;
        case THRESHOLDED_RELU: return z >= alpha ? z : 0;
        case SCALED_TANH: return alpha * tanh_(beta * z);
        case HARD_SIGMOID: {
            ACC y = alpha * z + beta;
            return y < 0 ? 0 : y > 1 ? 1 : y;
        }
        case ELU: return z > 0 ? z : alpha * expm1_(z);
        case SOFTSIGN: return z / (1 + magnitude);
        default: return positive + log1p_(exp_(-magnitude));  // SOFTPLUS
    }
}

// Its derivative at z: where the function bends that of the left side, zero where z was clipped.
__device__ inline ACC slope(ActivationKind kind, ACC alpha, ACC beta, ACC clip, ACC z) {
    if (clipped(clip, z) != z) return 0;
    switch (kind) {
        case RELU: return z > 0 ? 1 : 0;
        case TANH: {
            ACC y = tanh_(z);
            return 1 - y * y;
        }
        case SIGMOID: {
            ACC y = sigmoid(z);
            return y * (1 - y);
        }
        case AFFINE: return alpha;
        case LEAKY_RELU: return z > 0 ? 1 : alpha;
        case THRESHOLDED_RELU: return z >= alpha ? 1 : 0;
        case SCALED_TANH: {
            ACC y = tanh_(beta * z);
            return alpha * beta * (1 - y * y);
        }
        case HARD_SIGMOID: {
            ACC y = alpha * z + beta;
            return y > 0 && y < 1 ? alpha : 0;
        }
        case ELU: return z > 0 ? 1 : alpha * exp_(z);
        case SOFTSIGN: {
            ACC y = 1 / (1 + (z > 0 ? z : -z));
            return y * y;
        }
        default: return sigmoid(z);  // SOFTPLUS
    }
}
