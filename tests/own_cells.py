"""Cells of a user's own, as text for tests to plant faults in: one with most of a row, one with an inner product."""

from pathlib import Path

import numpy as np

from gpulstm.cells import Cell, Extra, Inner, Kernels, Product

RICH_PYTHON = """
def forward(xp, zx, zr, states, extra):
    (h, c, m), (look,), (x_a, x_b), (r_a, r_b) = states, extra, xp.split(zx, 2, axis=1), xp.split(zr, 2, axis=1)
    p, q = xp.split(look, 2)
    r_a = r_a.copy()
    a, b = xp.tanh(x_a + r_a * p), 0.5 * xp.tanh(0.5 * (x_b + r_b)) + 0.5
    c_new, m_new = 0.75 * c + 0.25 * a, m * b + a
    t = xp.tanh(c_new + q * m_new)
    return (0.5 * h + t, c_new, m_new), (a, b, r_a, t, m, m_new)

def backward(xp, dstates, saved, extra):
    (dh, dc, dm), (look,), (a, b, r_a, t, m, m_new) = dstates, extra, saved
    p, q = xp.split(look, 2)
    dt = dh * (1 - t * t)
    dc, dm = dc + dt, dm + dt * q
    dz_a, dz_b = (0.25 * dc + dm) * (1 - a * a), dm * m * b * (1 - b)
    dlook = xp.concatenate([dz_a * r_a, dt * m_new], axis=1)
    dzx = xp.concatenate([dz_a, dz_b], axis=1)
    dzr = xp.concatenate([dz_a * p, dz_b], axis=1)
    return dzx, dzr, (0.5 * dh, 0.75 * dc, dm * b), (dlook,)
"""
RICH_TEXT = """
#include "cell.cuh"

struct Rich : Cell {
    static constexpr int gates = 2, states = 3, kept = 4, vectors = 2, options = 1;
    static constexpr bool split = true, direct = true;
    double leak;

    FN explicit Rich(const double* o) : Cell(o), leak(o[0]) {}

    template <class V> FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        V old = number<V>(leak), a = tanh_(zx[0] + zr[0] * e[0]), b = sigmoid(zx[1] + zr[1]);
        after[1] = old * before[1] + (1 - old) * a;
        after[2] = before[2] * b + a;
        V t = tanh_(after[1] + e[1] * after[2]);
        after[0] = number<V>(0.5) * before[0] + t;
        keep[0] = a;
        keep[1] = b;
        keep[2] = zr[0];
        keep[3] = t;
    }

    template <class V> FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        V old = number<V>(leak), a = keep[0], b = keep[1], t = keep[3];
        V dt = d[0] * (1 - t * t), dc = d[1] + dt, dm = d[2] + dt * e[1];
        V dz_a = ((1 - old) * dc + dm) * (1 - a * a), dz_b = dm * before[2] * b * (1 - b);
        de[0] = dz_a * keep[2];
        de[1] = dt * (before[2] * b + a);
        dzx[0] = dz_a;
        dzx[1] = dz_b;
        dzr[0] = dz_a * e[0];
        dzr[1] = dz_b;
        d[0] = number<V>(0.5) * d[0];
        d[1] = old * dc;
        d[2] = dm * b;
    }
};
"""
INNER_PYTHON = """
def inner_forward(xp, zx, zr, states, extra):
    (x_r, _), (r_r, _) = xp.split(zx, 2, axis=1), xp.split(zr, 2, axis=1)
    return xp.tanh(x_r + r_r) * states[0]

def inner_backward(xp, dv, dzx, dzr, dstates, saved, extra):
    r, n, h = saved
    _, dz_n = xp.split(dzx, 2, axis=1)
    dz = xp.concatenate([dv * h * (1 - r * r), dz_n], axis=1)
    return dz, dz, (dstates[0] + dv * r,)

def forward(xp, zx, zr, states, extra):
    z_r, z_n = xp.split(zx + zr, 2, axis=1)
    r, n = xp.tanh(z_r), xp.tanh(z_n)
    return (n + 0.5 * states[0],), (r, n, states[0])

def backward(xp, dstates, saved, extra):
    r, n, h = saved
    dz = xp.concatenate([xp.zeros_like(r), dstates[0] * (1 - n * n)], axis=1)
    return dz, dz, (0.5 * dstates[0],), ()
"""
INNER_TEXT = """
#include "cell.cuh"

struct Middle : Cell {
    static constexpr int gates = 2, states = 1, kept = 2;
    static constexpr bool direct = true, inner = true;
    using Cell::Cell;

    template <class V> FN V inner_forward(const V* zx, const V* zr, const V* before, const V* e) const {
        return tanh_(zx[0] + zr[0]) * before[0];
    }

    template <class V> FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        keep[0] = tanh_(zx[0] + zr[0]);
        keep[1] = tanh_(zx[1] + zr[1]);
        after[0] = keep[1] + number<V>(0.5) * before[0];
    }

    template <class V> FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        dzx[0] = number<V>(0);
        dzx[1] = d[0] * (1 - keep[1] * keep[1]);
        d[0] = number<V>(0.5) * d[0];
    }

    template <class V> FN void inner_backward(const V* keep, const V* before, const V* e, V dv, V* d, V* dz) const {
        dz[0] += dv * before[0] * (1 - keep[0] * keep[0]);
        d[0] += dv * keep[0];
    }
};
"""


def replaced(text: str, edits: tuple[tuple[str, str], ...]) -> str:
    """``text`` with each edit, whose first part stands in it once."""
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
        text = text.replace(old, new)
    return text


def functions(text: str) -> dict:
    """What a text of Python defines."""
    names: dict = {"np": np}
    exec(text, names)  # our own text, above
    return names


def rich(folder: Path, python: tuple = (), text: tuple = (), **row) -> Cell:
    """The cell whose row says split, direct, three states, a vector, a matrix, a product of c, and an option."""
    made = functions(replaced(RICH_PYTHON, python))
    file = folder / "rich.cuh"
    file.write_text(replaced(RICH_TEXT, text))
    products = (Product("h", "w_hh", slice(0, 2)), Product("c", "weight_c", slice(1, 2), slice(0, 1)))
    row = {
        "gates": ("a", "b"), "states": ("h", "c", "m"), "split": True, "direct": True, "products": products,
        "extra": (Extra("weight_c", 1, matrix=True), Extra("look", 2, initial=1.0)),
        "kernel": Kernels(str(file), "Rich", options=(0.75,), kept=2), **row,
    }  # fmt: skip
    return Cell("rich", forward=made["forward"], backward=made["backward"], **row)


def middle(folder: Path, python: tuple = (), text: tuple = (), **row) -> Cell:
    """The cell with an inner product."""
    made = functions(replaced(INNER_PYTHON, python))
    file = folder / "middle.cuh"
    file.write_text(replaced(INNER_TEXT, text))
    row = {
        "products": (Product("inner", "w_hh", slice(1, 2)), Product("h", "w_hh", slice(0, 1))), "direct": True,
        "inner": Inner(made["inner_forward"], made["inner_backward"]), "kernel": Kernels(file, "Middle"), **row,
    }  # fmt: skip
    return Cell("middle", ("r", "n"), ("h",), made["forward"], made["backward"], **row)


def wide(folder: Path) -> Cell:
    """``middle`` with one more gate: its inner product gives two, n and k, and h is n * k + h / 2."""
    made = functions(replaced(INNER_PYTHON, (
        ("z_r, z_n = xp.split(zx + zr, 2, axis=1)\n    r, n = xp.tanh(z_r), xp.tanh(z_n)\n"
         "    return (n + 0.5 * states[0],), (r, n, states[0])",
         "r, n, k = (xp.tanh(z) for z in xp.split(zx + zr, 3, axis=1))\n"
         "    return (n * k + 0.5 * states[0],), (r, n, k, states[0])"),
        ("r, n, h = saved\n    dz = xp.concatenate([xp.zeros_like(r), dstates[0] * (1 - n * n)], axis=1)",
         "(r, n, k, _), dh = saved, dstates[0]\n"
         "    dz = xp.concatenate([xp.zeros_like(r), dh * k * (1 - n * n), dh * n * (1 - k * k)], axis=1)"),
        ("(x_r, _), (r_r, _) = xp.split(zx, 2, axis=1), xp.split(zr, 2, axis=1)\n",
         "x_r, r_r = xp.split(zx, 3, axis=1)[0], xp.split(zr, 3, axis=1)[0]\n"),
        ("r, n, h = saved\n    _, dz_n = xp.split(dzx, 2, axis=1)\n"
         "    dz = xp.concatenate([dv * h * (1 - r * r), dz_n], axis=1)",
         "r, _, _, h = saved\n    _, *rest = xp.split(dzx, 3, axis=1)\n"
         "    dz = xp.concatenate([dv * h * (1 - r * r), *rest], axis=1)"),
    )))  # fmt: skip
    file = folder / "wide.cuh"
    file.write_text(replaced(INNER_TEXT, (
        ("struct Middle", "struct Wide"), ("gates = 2, states = 1, kept = 2", "gates = 3, states = 1, kept = 3"),
        ("keep[1] = tanh_(zx[1] + zr[1]);", "keep[1] = tanh_(zx[1] + zr[1]), keep[2] = tanh_(zx[2] + zr[2]);"),
        ("after[0] = keep[1] +", "after[0] = keep[1] * keep[2] +"),
        ("dzx[1] = d[0] * (1 - keep[1] * keep[1]);",
         "dzx[1] = d[0] * keep[2] * (1 - keep[1] * keep[1]), dzx[2] = d[0] * keep[1] * (1 - keep[2] * keep[2]);"),
    )))  # fmt: skip
    products = Product("inner", "w_hh", slice(1, 3)), Product("h", "w_hh", slice(0, 1))
    inner = Inner(made["inner_forward"], made["inner_backward"])
    rest = {"products": products, "direct": True, "inner": inner, "kernel": Kernels(file, "Wide")}
    return Cell("wide", ("r", "n", "k"), ("h",), made["forward"], made["backward"], **rest)
