// A cell: the arithmetic of one time step for one unit, forward and backward, without the matrix products.
//
// To write a cell, derive a struct from Cell in a file of its own, such as kernels/cells/<cell>.cuh. Its functions are
// templates over the type V of the values. On a GPU, V is float or double and stands for one unit. On a processor, V is
// a vector and stands for several units side by side. Therefore a cell
//
// - has no branches on values: where() chooses between two values,
// - calls only the functions of math.cuh and activation.cuh,
// - does not deal with arrays, biases, zoneout, or sequences that have ended: the code that runs it does so (step.cu
//   on a GPU, host/ on a processor).
//
//     static constexpr int gates, states, kept;  // how many of each
//     template <class V>
//     FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const;
//     template <class V>
//     FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const;
//
// zx, zr  [gates]    pre-activations from the input and from the states, biases included, in the order of the gates. A
//                    cell that is not `split` must use only their sum, which may come in zx, with zeros in zr
// before  [states]   the states before the step, h first. Only a `direct` cell may read h
// e       [vectors]  this unit's numbers of the parameters that are vectors, in the order of Cell.extra in Python
// after   [states]   out: the states after the step
// keep    [kept]     out: the values that backward needs besides `before` and `e`
// d       [states]   in: the gradients of the states after the step; out: those of the states before it. d[0] leaves
//                    out the part that goes through zr, and a cell that is not `direct` need not write it
// dzx     [gates]    out: the gradients of zx
// dzr     [gates]    out: the gradients of zr; a cell that is not `split` writes only dzx, which then counts for both
// de      [vectors]  out: the gradients of e
//
// The arrays do not overlap. The values in `keep` may be stored in a narrower type. If backward computes activations
// again from kept pre-activations, forward must compute them from stored(z) too. Otherwise rounding could put z on the
// other side of a kink. If all of d is zero, everything that backward writes must be zero, so that a sequence that has
// ended adds nothing.
//
// An `inner` cell has a product in the middle of its step:
//
//     FN V inner_forward(const V* zx, const V* zr, const V* before, const V* e) const;
//     FN void inner_backward(const V* keep, const V* before, const V* e, V dv, V* d, V* dz) const;
//
// inner_forward returns v, the factor of that product. The elements of zr that the product will fill are not yet set;
// forward sees zr complete. backward leaves out the gradient that goes through the product. Then inner_backward gets
// dv, the gradient of v. It adds its part to d and completes dz, which backward has written. Such a cell cannot be
// `split`.
//
// A `normed` cell normalises the products over each row, and also c, its only state besides h. In place of forward and
// backward it has the functions below. x_hat and r_hat [gates] are the normalised products, c_hat is the normalised c,
// and g [gates] are the activated gates:
//
//     FN void gates_of(const V* x_hat, const V* r_hat, const V* e, V* g) const;
//     FN V state(const V* g, const V* before) const;          // c
//     FN V output(const V* g, V c_hat, const V* e) const;     // h
//     FN void output_backward(const V* g, V c_hat, const V* e, V dh, V& d_hat, V* dz, V* de) const;
//     FN void state_backward(const V* g, const V* before, const V* x_hat, const V* r_hat, const V* e, V dc, V* d,
//                            V* dz, V* dx_hat, V* dr_hat, V* de) const;
//
// output_backward gets dh. It writes d_hat, the gradient of c_hat, and its elements of dz (the gradients of the
// pre-activations) and of de. state_backward gets dc. It writes the gradient of the old c to d[1], the other elements
// of dz and de, and the gradients of x_hat and r_hat. The code that runs the cell computes means and scales, and adds
// the cell's `eps` to each variance. `kept` is 2 * gates: the products before they are normalised, those of the input
// first. Such a cell must be `split`.

#pragma once

#include "math.cuh"

struct Cell {
    static constexpr int vectors = 0;      // numbers that a unit has in the parameters that are vectors
    static constexpr int options = 0;      // numbers that the constructor reads
    static constexpr bool split = false;   // the gradients of zx and zr differ
    static constexpr bool direct = false;  // the equations read the previous h itself, not only its product
    static constexpr bool inner = false;   // there is a product in the middle of the step
    static constexpr bool normed = false;  // the step normalises rows (layer norm)

    // Options are numbers that are fixed when the cell is made; activation.cuh shows how they are used.
    FN explicit Cell(const double* options) {}

    // These are called only for an `inner` cell, which has its own.
    template <class V> FN V inner_forward(const V* zx, const V* zr, const V* before, const V* e) const {
        return number<V>(0);
    }

    template <class V>
    FN void inner_backward(const V* keep, const V* before, const V* e, V dv, V* d, V* dz) const {}
};
