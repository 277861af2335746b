// A cell whose gates depend on the input alone: its recurrence is linear in h, so that a scan can compute it.
//
// Such a cell is a struct derived from Scanned in a file of its own, kernels/cells/<cell>.cuh. As in cell.cuh, its
// functions are templates over the type V of the values. scan.cu and host/scan.cpp run whole sequences of it.
//
//     static constexpr int gates;
//     template <class V> FN static Coefficients<V> coefficients(const V* z);
//     template <class V> FN static void gradients(const Coefficients<V>& c, V h_prev, V dh, V* dz);
//
// z, dz  [gates]  the pre-activations, biases included, in the order of the gates; out: their gradients
// h_prev, dh      the state before the step; the gradient of the state after it
#pragma once

#include "math.cuh"

// h = keep * h_prev + take * n, keep + take = 1
template <class V> struct Coefficients {
    V keep, take, n;
    V u, v;  // further values that the cell's gradients need
};

struct Scanned {};
