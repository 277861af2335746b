"""The recurrent layer: runs any cell over whole sequences, with several layers, two directions and every option."""

from typing import Any, ClassVar

import numpy as np

from gpulstm import cells, checks, functional, shares
from gpulstm.backend import Device, backend_of
from gpulstm.cells import Cell
from gpulstm.errors import ShapeError
from gpulstm.functional import rearrange
from gpulstm.functional.sequence import Noise
from gpulstm.nn.arguments import as_tensor, check_input, check_states, on_host, time_first
from gpulstm.nn.directions import Call, outputs_of
from gpulstm.nn.initial import Initial, Weights
from gpulstm.nn.module import Module, check_sizes
from gpulstm.nn.options import check_layer, spell_out
from gpulstm.nn.regularize import regularization
from gpulstm.random import draw_seed
from gpulstm.tape import Tensor, apply


class Recurrent(Module):
    """Runs any cell over whole sequences, in several layers and directions; the base of gl.LSTM, gl.GRU and others.

    ``output, states = layer(x, states_0, lengths=, mask=, reset=)`` with T steps, B sequences, D = input_size,
    H = hidden_size, P = proj_size or H, L = num_layers and K = 2 directions if bidirectional, else 1:

    =========== ===================================================================================
    x           (T, B, D); (B, T, D) with ``batch_first``; (T, D) for a single sequence
    states      the hidden state h (L*K, B, P), also with ``batch_first``: layer by layer, forward
                before backward; (L*K, P) for a single sequence. A cell with more states takes and
                returns a tuple (h, c, ...), where the others are (L*K, B, H). The default is zeros
    lengths     (B,) integers from 0 to T in any order; None means T for every sequence
    mask        bool (T, B) or (B, T), like x: True for valid steps. It replaces lengths, for
                example if the padding is on the left
    reset       bool (T, B) or (B, T), like x: True where a new sequence begins; its states start at 0
    output      (T, B, K*P): the last layer's h at every step, forward then backward, zero at invalid
                steps; (T, B, P) if ``merge`` is not concat. With ``return_sequences=False`` the last
                step only: (B, K*P) or (B, P), (K*P,) or (P,) for a single sequence
    =========== ===================================================================================

    The backward direction starts at each sequence's own end, so at step t it has seen the steps from the end
    down to t. The returned states are those of each direction after its last step. For a bidirectional layer with
    num_layers=1, ``h_n[0]`` equals ``output[lengths - 1, b, :P]`` and ``h_n[1]`` equals ``output[0, b, P:]``.

    ``return_sequences=False`` (Keras' name) returns only the last layer's h after each direction's last step, for
    example to classify sequences. ``merge`` joins the directions. The option respects lengths, masks and resets; a
    sequence of length 0 returns its initial state. The states do not depend on this option.

    Parameters have PyTorch's names. Layer k has weight_ih_l{k} (G*H, D or K*P), weight_hh_l{k} (G*H, P), bias_ih_l{k}
    and bias_hh_l{k} (G*H,), where G is the number of gates, in the cell's order. ``proj_size`` adds weight_hr_l{k}
    (P, H), and some cells add parameters of their own. The backward direction has the suffix _reverse.

    In training, ``dropout`` acts on the output of every layer but the last. ``merge`` says how to join the directions:
    concat, sum, mean or mul. ``regularize`` takes gl.Zoneout, gl.VariationalDropout or gl.WeightDrop, or several of
    them. ``init`` chooses the initial weights: torch, keras or orthogonal; ``forget_bias`` sets the initial bias of the
    forget gate. ``recompute`` saves memory: it stores few states and recomputes the others in the backward pass.
    ``generator`` draws the initial weights and the dropout. ``path`` chooses the implementation; ``gl.explain`` shows
    which one ran. Raises ShapeError, DTypeError or DeviceError, naming the argument that does not fit.

    >>> gl.Recurrent("coupled", 3, 4, bidirectional=True)(np.zeros((5, 2, 3), np.float32))[0].shape
    (5, 2, 8)
    """

    equation: ClassVar[dict[str, Any]] = {}  # options of a subclass that change the equation, and their defaults

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        spell_out(cls, Recurrent)

    def __init__(
        self,
        cell: str | Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        merge: str = "concat",
        return_sequences: bool = True,
        regularize: Any = (),
        init: str = "torch",
        forget_bias: float | None = None,
        recompute: bool = False,
        device: "str | Device | None" = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
        path: str = "auto",
    ) -> None:
        self.cell = cells.find(cell)
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        input_size, hidden_size, num_layers = check_sizes(**sizes)
        want = f"an integer, 0 <= proj_size < hidden_size = {hidden_size}"
        proj_size = checks.integer("proj_size", proj_size, 0, hidden_size, words=want)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.proj_size, self.merge, self.return_sequences = proj_size, merge, return_sequences
        self.recompute, self.generator, self.path = recompute, generator, path
        flags = {"batch_first": batch_first, "bidirectional": bidirectional, "recompute": recompute}
        check_layer(self, merge, bias, num_layers, dropout, **flags, return_sequences=return_sequences)
        self.bias = bias and self.cell.biases
        self.regularization = regularization(regularize, self.cell)
        weights = Weights(self.cell, hidden_size, init, forget_bias, Initial(device, dtype, generator))
        for layer in range(num_layers):
            for suffix in self._suffixes:
                width = input_size if layer == 0 else self.output_size
                for name, value in weights.drawn(width, self.bias, proj_size):
                    setattr(self, f"{name}_l{layer}{suffix}", value)

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def output_size(self) -> int:
        """The size of output's last axis."""
        return (self.proj_size or self.hidden_size) * (len(self._suffixes) if self.merge == "concat" else 1)

    def forward(self, x: Any, hx: Any = None, lengths: Any = None, mask: Any = None, reset: Any = None) -> Any:
        """Return (output, states); the docstring of the class describes arguments and shapes."""

        def run(x: Tensor, layer: int, calls: list[Call]) -> list[tuple]:
            return outputs_of(x, calls, self.path, self.recompute, cell=self.cell)

        return self._over_layers(run, x, hx, lengths, mask, reset)

    def trace(
        self, x: Any, hx: Any = None, lengths: Any = None, mask: Any = None, reset: Any = None
    ) -> dict[str, np.ndarray]:
        """Return every gate and state of all layers and steps as a dict of NumPy arrays (T, B, H).

        The keys are names such as "i_l0" and "c_l1_reverse". Arguments are those of ``forward``. Time is the first axis
        of the result, also with ``batch_first``. See functional.trace.
        """
        traced: dict[str, np.ndarray] = {}

        def run(x: Tensor, layer: int, calls: list[Call]) -> list[tuple]:
            made = []
            for call in calls:
                raw = [None if a is None else a.data for a in (x, *call.arguments)]
                options = {"cell": self.cell, **call.modes}
                with backend_of(x.data) as backend:
                    for name, values in functional.trace(*raw, **options).items():
                        traced[f"{name}_l{layer}{call.suffix}"] = backend.to_numpy(values)
                    outputs, _ = functional.recurrent(*raw, **options, path="reference")
                made.append(tuple(map(Tensor, outputs)))
            return made

        self._over_layers(run, x, hx, lengths, mask, reset)
        return traced

    def _over_layers(self, run: Any, x: Any, hx: Any, lengths: Any, mask: Any, reset: Any) -> Any:
        """Call ``run(x, layer, calls)`` for each layer, with one Call per direction; return (output, states)."""
        weight = getattr(self, "weight_ih_l0")  # noqa: B009
        x = as_tensor(x, "x", weight)
        check_input(x, self.input_size, self.batch_first, weight)
        batched = x.ndim == 3
        if not batched and lengths is not None:
            raise ShapeError(f"lengths: expected None with a single sequence (T, D), got {lengths!r}")
        masks = {"lengths": on_host(lengths)}
        for name, value in (("mask", mask), ("reset", reset)):
            masks[name] = time_first(name, value, x.shape[:-1], self.batch_first)
        if not batched:
            x = x.reshape(x.shape[0], 1, x.shape[1])
        elif self.batch_first:
            x = x.transpose(1, 0, 2)
        rows, P = self.num_layers * len(self._suffixes), self.proj_size or self.hidden_size
        widths = [P, *[self.hidden_size] * (len(self.cell.states) - 1)]
        states = check_states(hx, self.cell.states, rows, x.shape[1], widths, batched, weight)

        last: list[tuple] = []
        for layer in range(self.num_layers):
            x = self._dropped(x, layer)
            calls = []
            for row, suffix in enumerate(self._suffixes, len(last)):
                arguments = [None if state is None else state[row] for state in states]
                arguments += self._weights(layer, suffix)
                calls.append(Call(suffix, arguments, {**masks, **self._noise(), "reverse": suffix != ""}))
            outputs = []
            for y, *after in run(x, layer, calls):
                outputs.append(y)
                last.append(tuple(after))
            if layer == self.num_layers - 1 and not self.return_sequences:
                outputs = [after[0] for after in last[-len(self._suffixes) :]]
            x = self._merged(outputs)
        return self._output(x, batched), self._last_states(last, batched)

    def _dropped(self, x: Tensor, layer: int) -> Tensor:
        """Apply the dropout before a layer to its input, in training."""
        share = shares.current()
        if layer > 0 and self.dropout and self.training:
            draws = share and share.draws(x.shape, 1)
            x = apply(functional.dropout, x, rate=self.dropout, seed=draw_seed(self.generator), draws=draws)
        if (rate := self.regularization.variational.input) and self.training:
            draws = share and share.draws(x.shape[1:], 0)
            x = apply(functional.variational_dropout, x, rate=rate, seed=draw_seed(self.generator), draws=draws)
        return x

    def _output(self, x: Tensor, batched: bool) -> Tensor:
        """Convert x (T, B, K*P) or (B, K*P), time first, to the layout of the input."""
        if not batched:
            return x.reshape(*x.shape[:-2], x.shape[-1])
        return x.transpose(1, 0, 2) if self.batch_first and x.ndim == 3 else x

    def _last_states(self, last: list[tuple], batched: bool) -> Any:
        """Stack each state over all layers and directions; a cell with one state gives no tuple."""
        stacked = [apply(rearrange.stack, *state) for state in zip(*last, strict=True)]
        if not batched:
            stacked = [state.reshape(state.shape[0], state.shape[2]) for state in stacked]
        return stacked[0] if len(stacked) == 1 else tuple(stacked)

    def _weights(self, layer: int, suffix: str) -> list:
        """The parameters of one layer and direction, in the order of functional.recurrent."""
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", *(e.name for e in self.cell.extra)]
        weights = [getattr(self, f"{name}_l{layer}{suffix}", None) for name in names]
        rate = self.regularization.weight_drop.rate
        if rate and self.training:
            weights[1] = apply(functional.dropout, weights[1], rate=rate, seed=draw_seed(self.generator))
        return weights

    def _noise(self) -> dict[str, Any]:
        """Zoneout and recurrent dropout of one direction, with fresh seeds in training."""

        def noise(rate: float) -> Noise | None:
            seed = draw_seed(self.generator) if rate and self.training else None
            return Noise(rate, seed, share=shares.current()) if rate else None

        zoneout, recurrent = self.regularization.zoneout, self.regularization.variational.recurrent
        return {"zoneout": (noise(zoneout.h), noise(zoneout.c)), "recurrent_dropout": noise(recurrent)}

    def _merged(self, outputs: list) -> Tensor:
        """Join the outputs of the directions, each (T, B, P) or (B, P)."""
        if len(outputs) == 1:
            return outputs[0]
        if self.merge == "concat":
            return apply(rearrange.concatenate, *outputs, axis=-1)
        forward, backward = outputs
        if self.merge == "mul":
            return forward * backward
        return (forward + backward) * (0.5 if self.merge == "mean" else 1.0)

    def extra_repr(self) -> str:
        options = [f"{self.input_size}, {self.hidden_size}"]
        if type(self) is Recurrent:
            options.insert(0, self.cell.name)
        defaults: dict[str, Any] = {"num_layers": 1, "bias": self.cell.biases, "batch_first": False, "dropout": 0.0}
        defaults |= self.equation
        defaults |= {"bidirectional": False, "proj_size": 0, "merge": "concat", "return_sequences": True}
        defaults |= {"recompute": False, "path": "auto"}
        options += [f"{name}={getattr(self, name)}" for name, usual in defaults.items() if getattr(self, name) != usual]
        return ", ".join([*options, *self.regularization.words()])
