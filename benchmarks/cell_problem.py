"""The sequence that the cells other than the LSTM compute, in gpulstm and in torch."""

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.problem import Shape, multiples


@dataclass(frozen=True)
class Form:
    """What a cell has: gates, states, whether its products have biases, and further parameters."""

    gates: int
    states: tuple[str, ...]
    biases: bool = True
    recurrent: bool = True  # has weight_hh
    extra: tuple[tuple[str, int, str], ...] = ()  # (name, blocks of H, "vector" | "matrix" | "ones")
    fused: bool = False  # torch has it as one layer; a loop over time is written for the others


_LSTM = ("h", "c")
_NORMS = (("norm_ih", 4, "ones"), ("norm_hh", 4, "ones"), ("bias", 4, "vector"), ("norm_c", 1, "ones"),
          ("bias_c", 1, "vector"))  # fmt: skip
FORMS = {
    "gru": Form(3, ("h",), fused=True),
    "rnn": Form(1, ("h",), fused=True),
    "gru, reset before": Form(3, ("h",)),
    "peephole": Form(4, _LSTM, extra=(("weight_ch", 3, "vector"),)),
    "peephole, full": Form(4, _LSTM, extra=(("weight_ch", 3, "matrix"),)),
    "coupled": Form(3, _LSTM),
    "layer norm": Form(4, _LSTM, biases=False, extra=_NORMS),
    "slstm": Form(4, ("h", "c", "n", "m")),
    "lstm, zoneout": Form(4, _LSTM),
    "lstm, lengths": Form(4, _LSTM, fused=True),
    "minlstm": Form(3, ("h",), recurrent=False),
    "mingru": Form(2, ("h",), recurrent=False),
}


class CellProblem:
    """One layer and one batch, float32 on the host: weights by gpulstm's names without the layer's number."""

    def __init__(self, shape: Shape, cell: str, seed: int = 0) -> None:
        self.shape, self.cell, self.form = shape, cell, FORMS[cell]
        B, T, D, H, GH = shape.B, shape.T, shape.D, shape.H, self.form.gates * shape.H
        generator, scale = np.random.default_rng(seed), 1 / math.sqrt(shape.H)
        self.x, self.dy = multiples(generator, (T, B, D), 2.0), multiples(generator, (T, B, H), 1.0)
        self.lengths = None  # (B,), half of the steps at least; the longest has all
        if cell == "lstm, lengths":
            self.lengths = np.sort(generator.integers((T + 1) // 2, T + 1, B))[::-1].copy()
            self.lengths[0] = T
        self.weights = {"weight_ih": multiples(generator, (GH, D), scale)}
        if self.form.recurrent:
            self.weights["weight_hh"] = multiples(generator, (GH, H), 2 * scale)
        if self.form.biases:
            names = ("bias_ih", "bias_hh") if self.form.recurrent else ("bias_ih",)
            self.weights |= {name: multiples(generator, (GH,), 0.5) for name in names}
        for name, blocks, kind in self.form.extra:
            size = (blocks * H, H) if kind == "matrix" else (blocks * H,)
            value = multiples(generator, size, scale if kind == "matrix" else 0.5)
            self.weights[name] = value + 1 if kind == "ones" else value

    def matrices(self) -> list[tuple[int, int]]:
        """(rows, columns) of the weights that are multiplied with, the input's first."""
        return [array.shape for array in self.weights.values() if array.ndim == 2]

    def names(self, mode: str) -> tuple[str, ...]:
        """What a mode computes, in order."""
        outputs = ("y", *(f"{state}_n" for state in self.form.states))
        return outputs + tuple(f"d{name}" for name in self.weights) if mode == "training" else outputs
