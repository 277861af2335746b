"""One recurrent operator of ONNX: its weights and options. It can run as ONNX defines it, or make a layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm import functional
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.cells import Cell
from gpulstm.cells.activation import Activation
from gpulstm.errors import ShapeError
from gpulstm.io.onnx.attributes import DEFAULTS, DIRECTIONS, STATES
from gpulstm.io.onnx.cells import cell_of, layer_of

_GIVEN = ("sequence_lens", "initial_h", "initial_c")  # inputs besides X


@dataclass(frozen=True, eq=False)
class Operator:
    """An LSTM, GRU or RNN operator of ONNX; ``direction`` is "forward", "reverse" or "bidirectional".

    ``weights`` holds the arrays of each direction, with gpulstm's names and gate order: weight_ih (G*H, D), weight_hh
    (G*H, H), bias_ih and bias_hh (G*H,) if it has biases, weight_ch (3H,) in the order i, f, o if it has peepholes.
    With ``layout`` 1 the batch comes first, also in the states.

    ``initial_h`` and ``initial_c`` (directions, B, H) and ``sequence_lens`` (B,) are those stored in the file, else
    None. ``open_inputs`` names those that are computed by the file or are inputs of the model: pass them to ``run``.
    ``any_batch`` names those of them that the file computes for any batch size, as for learned initial states; ``run``
    raises ShapeError without them. Initial states of zeros are not listed, since the operator starts from zeros anyway.
    ``run`` raises ShapeError or FormatError for inputs that do not fit.

    >>> gl.io.onnx.save("model.onnx", gl.LSTM(3, 4))
    >>> Y, Y_h, Y_c = gl.io.onnx.load("model.onnx").operators["l0.lstm"].run(np.zeros((5, 2, 3), np.float32))
    >>> Y.shape, Y_h.shape
    ((5, 1, 2, 4), (1, 2, 4))
    """

    kind: str
    name: str
    weights: tuple[dict[str, np.ndarray], ...]
    activations: tuple[tuple[Activation, ...], ...]  # for each direction
    direction: str = "forward"
    clip: float | None = None
    input_forget: bool = False  # f = 1 - i
    linear_before_reset: bool = False
    layout: int = 0
    initial_h: np.ndarray | None = None
    initial_c: np.ndarray | None = None
    sequence_lens: np.ndarray | None = None
    open_inputs: tuple[str, ...] = ()
    any_batch: tuple[str, ...] = ()

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.weights[0]["weight_hh"].shape[1])

    @property
    def input_size(self) -> int:
        """D."""
        return int(self.weights[0]["weight_ih"].shape[1])

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cell of each direction."""
        return tuple(cell_of(self, activations) for activations in self.activations)

    @property
    def states(self) -> Any:
        """The initial states in the file as the layer takes them: None, h, or (h, c), (directions, B, H) each."""
        h, c = (self._time_first(state) for state in (self.initial_h, self.initial_c))
        if self.kind != "LSTM" or (h is None and c is None):
            return h
        return tuple(np.zeros_like(h if c is None else c) if state is None else state for state in (h, c))

    def _time_first(self, array: Any) -> Any:
        """The array with its first two axes in the order of layout 0."""
        return array if array is None or self.layout == 0 else array.swapaxes(0, 1)

    def run(self, X: Array, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None) -> tuple:
        """Run the operator: (Y, Y_h) of a GRU or RNN, (Y, Y_h, Y_c) of an LSTM, with ONNX' shapes, on the device of X.

        X is (T, B, D), Y (T, directions, B, H), and the states are (directions, B, H); with layout 1 they are
        (B, T, D), (B, T, directions, H) and (B, directions, H). Missing arguments come from the file; if it has none,
        the states are zeros and the lengths T. A sequence of length 0 keeps its initial states. Raises ShapeError,
        DTypeError or DeviceError for arrays that do not fit.
        """
        if X.ndim != 3:
            raise ShapeError(f"X: expected {'(T, B, D)' if self.layout == 0 else '(B, T, D)'}, got {X.shape}")
        for name, given in zip(_GIVEN, (sequence_lens, initial_h, initial_c), strict=True):
            if name in self.any_batch and given is None:
                raise ShapeError(f"{name}: expected an array, as the file computes one for any batch size, got None")
        backend, x = backend_of(X), self._time_first(X)
        lengths = self.sequence_lens if sequence_lens is None else sequence_lens
        states = [self._state(backend, "initial_h", initial_h, x), self._state(backend, "initial_c", initial_c, x)]
        outputs = []
        for number, (cell, reverse) in enumerate(zip(self.cells, DIRECTIONS[self.direction], strict=True)):
            first = [None if state is None else state[number] for state in states[: STATES[self.kind]]]
            own = {name: backend.asarray(array) for name, array in self.weights[number].items()}
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", *(e.name for e in cell.extra))
            with backend:
                weights = [own.get(name) for name in names]
                outputs.append(
                    functional.recurrent(x, *first, *weights, cell=cell, lengths=lengths, reverse=reverse)[0]
                )
        Y, *last = (backend.xp.stack(each, axis=1 - (n > 0)) for n, each in enumerate(zip(*outputs, strict=True)))
        if self.layout:
            Y, last = Y.transpose(2, 0, 1, 3), [state.swapaxes(0, 1) for state in last]
        return Y, *last

    def _state(self, backend: Backend, name: str, given: Any, x: Array) -> Any:
        """An initial state (directions, B, H) for x (T, B, D), or None."""
        state = getattr(self, name) if given is None else given
        if given is not None and name == "initial_c" and STATES[self.kind] == 1:
            raise ShapeError(f"initial_c: expected None, as a {self.kind} has none, got an array {given.shape}")
        if state is None:
            return None
        want = (len(self.weights), x.shape[1], self.hidden_size)
        if self._time_first(state).shape != want:
            words = "(directions, batch, hidden)" if self.layout == 0 else "(batch, directions, hidden)"
            raise ShapeError(f"{name}: expected {self._time_first(np.empty(want)).shape} = {words}, got {state.shape}")
        return backend.xp.ascontiguousarray(self._time_first(backend.asarray(state) if given is None else state))

    def layer(self, ignore_states: bool = False, **options: Any) -> Any:
        """Make a layer that computes the same, with these weights: gl.LSTM, GRU, RNN, else gl.Recurrent with the cell.

        A layer does not store initial states and lengths; it takes them at each call. If the file holds lengths, or
        initial states that are not zero, pass ``ignore_states=True`` here and give them at each call: ``layer(x,
        operator.states, lengths=operator.sequence_lens)``. ``options`` go to the constructor (device, dtype, ...);
        layout 1 becomes ``batch_first=True``. Raises FormatError for states and lengths in the file unless they are
        ignored, for the direction "reverse", and for directions with different activations; ``run`` supports all of
        these.
        """
        return layer_of([self], ignore_states, **options)

    @property
    def held(self) -> tuple[str, ...]:
        """The names of the initial states (other than zeros) and lengths in the file, which a layer does not store."""
        return tuple(
            name for name in _GIVEN
            if name in self.any_batch
            or ((array := getattr(self, name)) is not None and (name == "sequence_lens" or np.any(array != 0)))
        )  # fmt: skip

    def __repr__(self) -> str:
        words = [f"{self.kind} {self.name!r}", str(self.input_size), str(self.hidden_size), self.direction]
        if any(each != DEFAULTS[self.kind] for each in self.activations):
            words.append(f"activations {' '.join(a.name for each in self.activations for a in each)}")
        words += [f"clip {self.clip:g}"] if self.clip is not None else []
        words += ["peepholes"] if "weight_ch" in self.weights[0] else []
        words += [name for name in ("input_forget", "linear_before_reset") if getattr(self, name)]
        words += ["layout 1"] if self.layout else []
        words += [f"holds {n} {getattr(self, n).shape}" for n in self.held if n not in self.any_batch]
        words += [f"holds {name} for any batch" for name in self.any_batch]
        words += [f"open {name}" for name in self.open_inputs if name not in self.any_batch]
        return f"Operator({', '.join(words)})"
