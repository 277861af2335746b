"""The table of cells and of the sequences that every one of them is tested on."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpulstm.cells import CELLS, Cell, coupled, general, gru, layer_norm, lstm, peephole, rnn, slstm


@dataclass(frozen=True)
class CellCase:
    """One row for each variant of a cell, with how tests/first_principles/<file>.py is told of it."""

    name: str
    file: str  # of gpulstm/cells
    cell: Cell
    options: dict[str, Any] = field(default_factory=dict)
    smallest: int = 1  # of D and H in random configurations
    corners: bool = False  # rounding may take a pre-activation over a corner, where the slope jumps


_ODD = (("hard_sigmoid", 0.3, 0.4), ("scaled_tanh", 1.7, 0.6), ("softsign", None, None))
_CORNERED = (("hard_sigmoid", 0.2, 0.5), ("elu", 0.7, None), ("leaky_relu", 0.2, None))
CELL_CASES = (
    CellCase("lstm", "lstm", lstm.CELL),
    CellCase("rnn", "rnn", rnn.CELL),
    CellCase("rnn relu", "rnn", rnn.cell("relu"), {"activation": ("relu", None, None)}, corners=True),
    CellCase("rnn clipped", "rnn", rnn.cell("softplus", 0.5),
             {"activation": ("softplus", None, None), "clip": 0.5}, corners=True),
    CellCase("gru", "gru", gru.CELL),
    CellCase("gru cho", "gru", gru.cell(update="cho"), {"update": "cho"}),
    CellCase("gru before", "gru", gru.cell("before"), {"reset_before": True}),
    CellCase("gru before cho", "gru", gru.cell("before", "cho"), {"reset_before": True, "update": "cho"}),
    CellCase("gru odd", "gru", gru.cell(activations=_ODD[:2], clip=0.9),
             {"activations": _ODD[:2], "clip": 0.9}, corners=True),
    CellCase("peephole", "peephole", peephole.CELL),
    CellCase("peephole full", "peephole", peephole.cell("full")),
    CellCase("coupled", "coupled", coupled.CELL),
    # Norms make the gradients of a single input or unit cancel to nothing; tests/test_layer_norm.py has those.
    CellCase("layer_norm", "layer_norm", layer_norm.CELL, smallest=3),
    CellCase("slstm", "slstm", slstm.CELL),
    CellCase("general", "general", general.CELL),
    CellCase("general odd", "general", general.cell(_ODD, 1.5, True), {"activations": _ODD, "clip": 1.5}, corners=True),
    CellCase("general coupled", "general", general.cell(_CORNERED, None, True, True),
             {"activations": _CORNERED, "coupled": True}, corners=True),
)  # fmt: skip


@dataclass(frozen=True)
class SequenceCase:
    """One sequence to compute: sizes and which optional arguments are given."""

    name: str
    T: int = 5
    B: int = 3
    D: int = 4
    H: int = 5
    P: int = 0  # size of the projection; 0 for none
    lengths: tuple[int, ...] | None = None
    reverse: bool = False
    biases: int = 2  # 1: b_ih alone
    states: bool = True
    strided: bool = False  # x, y's gradient and the weights are not contiguous
    through: tuple[bool, bool, bool] = field(default=(True, True, True))  # gradient arrives by y, h_n, c_n

    def __str__(self) -> str:
        return self.name


SEQUENCES = (
    SequenceCase("plain"),
    SequenceCase("one step", T=1),
    SequenceCase("one sequence", B=1),
    SequenceCase("one unit", H=1, D=1),
    SequenceCase("wide", T=3, B=2, D=3, H=301),  # more elements than one block has threads
    SequenceCase("long", T=301, B=2, D=2, H=3, lengths=(300, 7)),
    SequenceCase("no sequences", B=0),
    SequenceCase("no bias", biases=0),
    SequenceCase("one bias", biases=1),
    SequenceCase("zero states", states=False),
    SequenceCase("reversed", reverse=True),
    SequenceCase("ragged", lengths=(2, 5, 0)),
    SequenceCase("ragged reversed", lengths=(0, 4, 1), reverse=True),
    SequenceCase("all ended", lengths=(0, 0, 0)),
    SequenceCase("projected", P=2),
    SequenceCase("projected ragged reversed", P=3, lengths=(3, 0, 5), reverse=True),
    SequenceCase("projected ragged", P=2, lengths=(3, 1, 5)),
    SequenceCase("strided", strided=True),
    SequenceCase("strided projected", strided=True, P=2),
    SequenceCase("through y only", through=(True, False, False)),
    SequenceCase("through h_n only", through=(False, True, False), lengths=(2, 5, 0)),
    SequenceCase("through c_n only", through=(False, False, True), lengths=(2, 5, 0), reverse=True),
    SequenceCase("through c_n only, projected", through=(False, False, True), P=2),
)


def _strided(array: np.ndarray) -> np.ndarray:
    """The same values in memory that is not contiguous."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def arguments(case: SequenceCase, rng: np.random.Generator, cell: str = "lstm") -> tuple[list[Any], tuple]:
    """([x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr], (dy, dh_n, dc_n)) in float64 on the host, None where not given."""
    G, P = len(CELLS[cell].gates), case.P or case.H
    make = rng.standard_normal
    x, dy = make((case.T, case.B, case.D)), make((case.T, case.B, P))
    w_ih, w_hh = make((G * case.H, case.D)), make((G * case.H, P)) / np.sqrt(P)
    if case.strided:
        x, dy, w_ih, w_hh = map(_strided, (x, dy, w_ih, w_hh))
    given = [
        x,
        make((case.B, P)) if case.states else None,
        make((case.B, case.H)) if case.states else None,
        w_ih,
        w_hh,
        make(G * case.H) if case.biases > 0 else None,
        make(G * case.H) if case.biases > 1 else None,
        make((P, case.H)) if case.P else None,
    ]
    cotangents = (dy, make((case.B, P)), make((case.B, case.H)))
    return given, tuple(d if wanted else None for d, wanted in zip(cotangents, case.through, strict=True))


def fast_path(backend: Any) -> str:
    """The path that functional.recurrent takes there for every cell of the library, unless another is asked for."""
    return "kernel" if backend.is_cuda else "engine"


def launched(path: str) -> str:
    """The path whose launches were made: a graph has those of "kernel", captured before."""
    return "kernel" if path == "graph" else path


def paths(backend: Any) -> list[str]:
    """Every path that serves there."""
    return list(dict.fromkeys((fast_path(backend), "reference")))
