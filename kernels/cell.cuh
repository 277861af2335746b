// What a cell is: the arithmetic of one time step of one unit, forward and backward, without the products.
//
// A cell is a struct derived from Cell in a file of its own, kernels/cells/<cell>.cuh. It is written once for any type
// V of its values: on a GPU a float or double, one unit; on a processor a vector of them, as many units side by side.
// So it has no branches on values (where() chooses), calls the functions of math.cuh alone, and knows nothing of
// arrays, biases, sequences that have ended, or zoneout: those belong to what runs it (step.cu and host/).
//
//     static constexpr int gates, states, kept;
//     template <class V>
//     FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const;
//     template <class V>
//     FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const;
//
// zx, zr  [gates]    pre-activations of the input's and of the recurrent part, biases included, in the order of the
//                    gates. Unless the cell is `split` only their sum may matter: it may come in zx, with zeros in zr
// before  [states]   the states before the step, h first. h may be read by a `direct` cell alone
// e       [vectors]  the unit's numbers of the parameters that are vectors, in the order of their rows
// after   [states]   out: the states after the step
// keep    [kept]     out: what backward needs besides `before` and `e`
// d       [states]   in: the gradients of the states after the step; out: those of the states before it, d[0] without
//                    what comes by way of zr. A cell that is not `direct` need not write d[0]
// dzx     [gates]    out: the gradients of zx
// dzr     [gates]    out: those of zr; a cell that is not `split` writes dzx alone, which is both
// de      [vectors]  out: the gradients of e
//
// None of the arrays overlap. What is kept may be stored in a narrower type. A cell that computes again from kept
// pre-activations, where a rounded one may lie on the other side of a bend, computes from stored(z) in forward too.
// Where all of d is zero everything that backward writes must be: so a sequence that has ended adds nothing.
//
// An `inner` cell has a product in the middle of its step:
//
//     FN V inner_forward(const V* zx, const V* zr, const V* before, const V* e) const;
//     FN void inner_backward(const V* keep, const V* before, const V* e, V dv, V* d, V* dz) const;
//
// inner_forward returns what is multiplied; elements of zr that wait for the product are not yet filled. forward then
// sees zr whole. backward leaves out what goes through the product; inner_backward has dv, the gradient of what was
// multiplied, adds its part to d and completes dz, which backward has written. Such a cell is not `split`.
//
// A `normed` cell normalises the products over each row, and c (the only state but h). It has no forward and
// backward but, with x_hat, r_hat [gates] and c_hat the normalised products and c, g [gates] the activated gates:
//
//     FN void gates_of(const V* x_hat, const V* r_hat, const V* e, V* g) const;
//     FN V state(const V* g, const V* before) const;          // c
//     FN V output(const V* g, V c_hat, const V* e) const;     // h
//     FN void output_backward(const V* g, V c_hat, const V* e, V dh, V& d_hat, V* dz, V* de) const;
//     FN void state_backward(const V* g, const V* before, const V* x_hat, const V* r_hat, const V* e, V dc, V* d,
//                            V* dz, V* dx_hat, V* dr_hat, V* de) const;
//
// output_backward has dh and writes the gradient of c_hat to d_hat, and its elements of dz, the gradients of the
// pre-activations, and of de. state_backward has dc, writes the gradient of the old c to d[1], the other elements of
// dz and de, and the gradients of x_hat and r_hat. Means and scales are found by what runs it, with the cell's `eps`
// beside each variance. `kept` is 2 * gates: the products as they came, those of the input first. Such a cell is
// `split`.

#pragma once

#include "math.cuh"

struct Cell {
    static constexpr int vectors = 0;      // numbers that a unit has in the parameters that are vectors
    static constexpr int options = 0;      // numbers that the constructor reads
    static constexpr bool split = false;   // the gradients of zx and zr differ
    static constexpr bool direct = false;  // h before the step enters the equations besides the products
    static constexpr bool inner = false;   // there is a product in the middle of the step
    static constexpr bool normed = false;  // there is a norm in it

    // Options are chosen when the cell is made: see activation.cuh.
    FN explicit Cell(const double* options) {}

    // Without an inner product nothing calls these.
    template <class V> FN V inner_forward(const V* zx, const V* zr, const V* before, const V* e) const {
        return number<V>(0);
    }

    template <class V>
    FN void inner_backward(const V* keep, const V* before, const V* e, V dv, V* d, V* dz) const {}
};
