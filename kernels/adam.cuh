// The arithmetic of one step of Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) and AMSGrad (Reddi et al.
// 2018), for one number or a vector of them, with the names of gpulstm/optim/adam.py.
//
//     p = keep p                              keep = 1 - lr * weight_decay for AdamW, else 1
//     g = g + l2 p                            l2 = weight_decay for Adam, else 0
//     m = beta1 m + (1 - beta1) g
//     v = beta2 v + (1 - beta2) g^2
//     p = p - step_size m / (sqrt(v) + eps)   for AMSGrad with the largest v so far in place of v
//
// step_size and eps contain the bias corrections. The caller computes them in float64:
//     step_size = lr sqrt(1 - beta2^step) / (1 - beta1^step),  eps = given eps * sqrt(1 - beta2^step).
#ifndef GPULSTM_ADAM
#define GPULSTM_ADAM

#include "math.cuh"

#ifdef GPULSTM_ISA
namespace GPULSTM_ISA {
#endif

template <class V> struct Adam {
    V keep, l2, beta1, beta2, new_share1, new_share2, step_size, eps;

    // numbers: keep, l2, beta1, beta2, step_size, eps
    FN explicit Adam(const double* numbers)
        : keep(number<V>(numbers[0])), l2(number<V>(numbers[1])), beta1(number<V>(numbers[2])),
          beta2(number<V>(numbers[3])), new_share1(number<V>(1 - numbers[2])), new_share2(number<V>(1 - numbers[3])),
          step_size(number<V>(numbers[4])), eps(number<V>(numbers[5])) {}

    // Returns the parameter after the step. Only AMSGrad uses `largest`, in which NaN stays NaN.
    FN V step(V p, V g, V& m, V& v, V& largest, bool amsgrad) const {
        p = keep * p;
        g = g + l2 * p;
        m = beta1 * m + new_share1 * g;
        v = beta2 * v + new_share2 * g * g;
        if (amsgrad) largest = maximum(v, largest);
        return p - step_size * m / (sqrt_(amsgrad ? largest : v) + eps);
    }
};

#ifdef GPULSTM_ISA
}  // namespace GPULSTM_ISA
#endif
#endif
