// The LSTM with every attribute of ONNX's operator, with the names of gpulstm/cells/general.py.
//
//     i = act_f(z_i + p_i * c_prev);  f = act_f(z_f + p_f * c_prev), or 1 - i if coupled;  g = act_g(z_g)
//     c = f * c_prev + i * g                                          z = x W_ih' + h_prev W_hh' + b
//     o = act_f(z_o + p_o * c)
//     h = o * act_h(c)                                                ONNX, LSTM-22
//
// The cell keeps the pre-activations without peepholes, which give the slope of any activation. Forward uses them as
// they are stored, so that both passes are on the same side of every kink of an activation. The options are those of
// act_f, act_g and act_h, and 1 for coupled gates or 0.

#pragma once

#include "activation.cuh"
#include "cell.cuh"

// e holds p_i, p_f and p_o.
struct GeneralPeephole : Cell {
    static constexpr int gates = 4, states = 2, kept = 4, vectors = 3, options = 3 * Activation::options + 1;
    Activation act_f, act_g, act_h;
    bool coupled;

    FN explicit GeneralPeephole(const double* o)
        : Cell(o), act_f(o), act_g(o + Activation::options), act_h(o + 2 * Activation::options),
          coupled(o[3 * Activation::options] != 0) {}

    // One step: the arguments of the activations, and the results.
    template <class V> struct Step {
        V z_i, z_f, z_g, z_o, i, f, g, o, c, h_c;
    };

    template <class V> FN Step<V> step(const V* z, V c_prev, const V* e) const {
        Step<V> s;
        s.z_i = z[0] + e[0] * c_prev;
        s.z_f = z[1] + e[1] * c_prev;
        s.z_g = z[2];
        s.i = act_f.activate(s.z_i);
        s.f = coupled ? 1 - s.i : act_f.activate(s.z_f);
        s.g = act_g.activate(s.z_g);
        s.c = s.f * c_prev + s.i * s.g;
        s.z_o = z[3] + e[2] * s.c;
        s.o = act_f.activate(s.z_o);
        s.h_c = act_h.activate(s.c);
        return s;
    }

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        for (int gate = 0; gate < gates; ++gate) keep[gate] = stored(zx[gate] + zr[gate]);
        Step<V> s = step(keep, before[1], e);
        after[0] = s.o * s.h_c;
        after[1] = s.c;
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        V c_prev = before[1], p_i = e[0], p_f = e[1], p_o = e[2], dh = d[0];
        Step<V> s = step(keep, c_prev, e);
        V dz_o = dh * s.h_c * act_f.slope(s.z_o);
        V dc = d[1] + dh * s.o * act_h.slope(s.c) + dz_o * p_o;
        V di = dc * s.g, df = dc * c_prev;
        V dz_i = (coupled ? di - df : di) * act_f.slope(s.z_i);
        V dz_f = coupled ? number<V>(0) : df * act_f.slope(s.z_f);
        dzx[0] = dz_i;
        dzx[1] = dz_f;
        dzx[2] = dc * s.i * act_g.slope(s.z_g);
        dzx[3] = dz_o;
        d[1] = dc * s.f + dz_i * p_i + dz_f * p_f;
        de[0] = dz_i * c_prev;
        de[1] = dz_f * c_prev;
        de[2] = dz_o * s.c;
    }
};

// The same without peepholes.
struct General : Cell {
    static constexpr int gates = 4, states = 2, kept = 4, options = GeneralPeephole::options;
    GeneralPeephole with_peepholes;

    FN explicit General(const double* o) : Cell(o), with_peepholes(o) {}

    template <class V>
    FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V none[3] = {number<V>(0), number<V>(0), number<V>(0)};
        with_peepholes.forward(zx, zr, before, none, after, keep);
    }

    template <class V>
    FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        V none[3] = {number<V>(0), number<V>(0), number<V>(0)}, dnone[3];
        with_peepholes.backward(keep, before, none, d, dzx, dzr, dnone);
    }
};
