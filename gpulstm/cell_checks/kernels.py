"""Compares a cell's kernel with its equations on one path: first one step, part by part, then random sequences."""

from typing import Any

import numpy as np

from gpulstm.backend import CPU, Backend
from gpulstm.cell_checks.equations import draw
from gpulstm.cell_checks.sequences import COUNT, Drawn, run
from gpulstm.cells import Cell
from gpulstm.errors import CellError

EXACT = 1e-9  # in float64, relative to the largest element: two orders of the same sums
FACTOR, SINGLE = 50, 2e-5  # in float32: times the equations' own error, plus relative to the largest element
LEAST = 1e-3  # lower bound of that largest: if a tanh saturates, 1 - tanh^2 loses the digits of a small gradient
B, H = 3, 5


def check_one_step(cell: Cell, backend: Backend, path: str, where: str, rng: np.random.Generator) -> None:
    """Raise CellError with the name of the state, gate or vector that differs; ``where`` begins the message."""
    arrays = _one_step(cell, rng)
    for given in np.eye(len(cell.states)):
        ds = [np.zeros((1, B, H)), *(d * rng.standard_normal((B, H)) for d in given)]
        want, want_d = run(cell, arrays, {}, ds, CPU, "reference", np.float64)
        got, got_d = run(cell, arrays, {}, ds, backend, path, np.float64)
        for state in cell.states:
            _compare(f"{where}: forward: state {state}", got[f"{state}_n"], want[f"{state}_n"])
        output = cell.states[int(given.argmax())]
        note = f" (from state {output}; keep must hold what backward reads)"
        for name, wanted in want_d.items():
            parts = _parts(cell, name)
            for part, block in zip(parts, np.split(np.arange(wanted.shape[-1]), len(parts)), strict=True):
                if part:
                    _compare(f"{where}: backward: {part}", got_d[name][..., block], wanted[..., block], note)


def _one_step(cell: Cell, rng: np.random.Generator) -> dict[str, Any]:
    """Arguments for one step in which zx is x, zr is b_hh, and h0 enters only outside the products."""
    G, one = len(cell.gates), draw(cell, rng, H, B)
    arrays: dict[str, Any] = {"x": one.zx[None]}
    arrays |= {f"{name}0": state for name, state in zip(cell.states, one.states, strict=True)}
    arrays |= {"w_ih": np.eye(G * H), "w_hh": np.zeros((G * H, H)), "b_ih": None}
    arrays |= {"b_hh": one.zr[0] if cell.biases else None, "w_hr": None}
    vectors = iter(one.extra)
    for form in cell.extra:
        arrays[form.name] = np.zeros((form.blocks * H, H)) if form.matrix else next(vectors)
    return arrays


def _parts(cell: Cell, name: str) -> list[str]:
    """The struct's names for the blocks of a gradient's last axis; "" for those that random sequences check."""
    vectors = {form.name: form.blocks for form in cell.extra if not form.matrix}
    if name in vectors:
        before = sum(list(vectors.values())[: list(vectors).index(name)])
        return [f"de[{before + k}] ({name})" for k in range(vectors[name])]
    if name in ("x", "b_hh"):
        return [f"dz{'x' if name == 'x' else 'r'}[{k}] (gate {gate})" for k, gate in enumerate(cell.gates)]
    state = name.removesuffix("0")
    return [f"d[{cell.states.index(state)}] (state {state})"] if state in cell.states else [""]


def check_random_sequences(cell: Cell, backend: Backend, path: str, where: str, rng: np.random.Generator) -> None:
    """Raise CellError with the sequence, and the output or gradient that differs."""
    for _ in range(COUNT):
        drawn = Drawn(cell, rng)
        want, plain = drawn.run(CPU, "reference"), drawn.run(CPU, "reference", np.float32)
        got, single = drawn.run(backend, path), drawn.run(backend, path, np.float32)
        for name, wanted in want.items():
            kind = "forward" if name == "y" or name.endswith("_n") else "the gradient of"
            what = f"{where}: {kind} {name} of {drawn}"
            _compare(what, got[name], wanted)
            readable = float(np.abs(plain[name] - wanted).max(initial=0))
            allowed = FACTOR * readable + SINGLE * _scale(wanted)
            _compare(f"{what} in float32", single[name], wanted, allowed=allowed)


def _scale(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=LEAST))


def _compare(what: str, got: np.ndarray, want: np.ndarray, note: str = "", allowed: float = 0.0) -> None:
    error = np.abs(got.astype(np.float64) - want)
    if error.size and not error.max() <= (allowed or EXACT * _scale(want)):
        at = np.unravel_index(int(np.nan_to_num(error, nan=np.inf).argmax()), error.shape)
        raise CellError(f"{what} differs from the equations{note}: expected {want[at]:.6g}, got {got[at]:.6g}")
