"""Makes gpulstm's recurrent layers from the options and weights of Keras layers; they compute the same."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpulstm import nn
from gpulstm.cells import gru
from gpulstm.cells.activation import Activation
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.keras.activations import of_cell
from gpulstm.io.keras.file import KerasLayer
from gpulstm.io.keras.versions import AMBIGUOUS, Version
from gpulstm.tape import Tensor, tensor

OPTIONS = ("activation", "recurrent_activation", "reset_after", "go_backwards", "merge_mode")
_MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}
_SIGMOID, _TANH = Activation("sigmoid"), Activation("tanh")


@dataclass(frozen=True)
class Form:
    """The options that decide what a recurrent layer computes.

    ``gates`` is the activation of the gates (recurrent_activation), None for a SimpleRNN. ``backward`` is the other
    direction's form if it differs.
    """

    kind: str
    activation: Activation
    gates: Activation | None
    reset: str
    go_backwards: bool
    merge: str
    time_major: bool
    backward: "Form | None" = None


def form_of(layer: KerasLayer, name: str, version: Version, given: dict[str, Any], whole: bool, where: str) -> Form:
    """The options that decide what a layer computes.

    They are those ``given``, then the layer's own; if the file holds none (``whole`` is False), the defaults of its
    version, with a warning. Raises FormatError for options that gpulstm's layers lack, and if a file with options does
    not tell which ones are this layer's.
    """
    kind, two = layer.kind, layer.bidirectional
    bias = layer.weights.get("forward/bias" if two else "bias")
    wanted = ["activation", "go_backwards", *(["merge_mode"] if two else [])]
    wanted += ["recurrent_activation"] if kind != "SimpleRNN" else []
    known = {key: layer.options[key] for key in OPTIONS if key in layer.options} | given
    if kind == "GRU" and bias is not None:
        if known.get("reset_after", bias.ndim == 2) != (bias.ndim == 2):
            want, got = bias.ndim == 2, known["reset_after"]
            raise FormatError(f"{where}: reset_after: expected {want} for a bias {bias.shape}, got {got!r}")
        known["reset_after"] = bias.ndim == 2
    wanted += ["reset_after"] if kind == "GRU" else []
    assumed = {key: version.default(key) for key in wanted if key not in known}
    if whole and not layer.told and assumed:
        raise FormatError(
            f"{where}: expected the layer in the file's configuration, got none that matches for certain; give "
            f"{', '.join(f'{key}=' for key in assumed)}, or load state_dict({name!r}) into a layer of your own"
        )
    for key, value in assumed.items():
        if value == AMBIGUOUS:
            raise FormatError(
                f"{where}: {key}: expected it from the file or the caller, as Keras {version.text or 'of no version'} "
                f"has no single default; give layer({name!r}, {key}=...)"
            )
    if assumed and not layer.told:
        words = ", ".join(f"{key}={value!r}" for key, value in assumed.items())
        warnings.warn(
            f"{where}: the file holds no options of its layers; assumed {words}, the defaults of Keras {version.text}. "
            f"If the model had others, give them: layer({name!r}, {next(iter(assumed))}=...)",
            stacklevel=3,  # the line that calls KerasFile.layer
        )
    return _form(layer, known | assumed, version, where)


def _form(layer: KerasLayer, options: dict[str, Any], version: Version, where: str) -> Form:
    told = layer.options
    differ = {key.removeprefix("backward_"): value for key, value in told.items() if key.startswith("backward_")}
    if others := differ.keys() - {"activation", "recurrent_activation"}:
        raise FormatError(f"{where}: expected both directions alike, got different {', '.join(sorted(others))}")
    for key in ("go_backwards", "reset_after"):
        if not isinstance(options.get(key, False), bool):
            raise FormatError(f"{where}: {key}: expected True or False, got {options[key]!r}")
    backwards, merge = options["go_backwards"], options.get("merge_mode", "concat")
    if layer.bidirectional and backwards:
        raise FormatError(f"{where}: go_backwards: expected False for a Bidirectional layer, got True")
    if merge not in _MERGES:
        raise FormatError(f"{where}: merge_mode: expected one of {', '.join(_MERGES)}, got {merge!r}")

    def activations(options: dict[str, Any]) -> dict[str, Any]:
        gates = None
        if layer.kind != "SimpleRNN":
            gates = of_cell(options["recurrent_activation"], version, f"{where}: recurrent_activation")
        return {"activation": of_cell(options["activation"], version, f"{where}: activation"), "gates": gates}

    reset, major = "after" if options.get("reset_after", True) else "before", told.get("time_major") is True
    form = Form(layer.kind, **activations(options), reset=reset, go_backwards=backwards, merge=_MERGES[merge],
                time_major=major)  # fmt: skip
    return replace(form, backward=replace(form, **activations(options | differ))) if differ else form


def recurrent(form: Form, state: dict[str, np.ndarray], options: dict[str, Any], where: str) -> nn.Module:
    """Make the layer with the weights of ``state``; ``options`` go to its constructor."""
    if form.backward is not None:
        return _unlike(form, form.backward, state, options, where)
    first, levels = state["weight_ih_l0"], sum(key.startswith("weight_ih_l") for key in state)
    two = "weight_ih_l0_reverse" in state
    sizes = first.shape[1], state["weight_hh_l0"].shape[1], levels // (2 if two else 1)
    options = {"bias": "bias_ih_l0" in state, "bidirectional": two, "batch_first": not form.time_major} | options
    options.setdefault("dtype", first.dtype)
    if two:
        options.setdefault("merge", form.merge)
    try:
        layer = _made(form, sizes, options)
    except ShapeError as error:
        raise ShapeError(f"{where}: {error}") from error
    layer.load_state_dict(state)
    return Backwards(layer) if form.go_backwards else layer


def _unlike(form: Form, other: Form, state: dict[str, np.ndarray], options: dict[str, Any], where: str) -> nn.Module:
    """Make two layers for two directions that differ."""
    merge = options.pop("merge", form.merge)
    forward = {key: value for key, value in state.items() if not key.endswith("_reverse")}
    backward = {key.removesuffix("_reverse"): value for key, value in state.items() if key.endswith("_reverse")}
    first = recurrent(replace(form, backward=None), forward, options, where)
    second = recurrent(replace(other, go_backwards=True), backward, options, where)
    return Directions(first, second, merge)


def _made(form: Form, sizes: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
    if form.kind == "SimpleRNN":
        options.setdefault("nonlinearity", _short(form.activation))
        return nn.RNN(*sizes, **options)
    gates = form.gates or _SIGMOID
    usual = (gates, form.activation) == (_SIGMOID, _TANH)
    if form.kind == "GRU":
        if usual:
            return nn.GRU(*sizes, **{"reset": form.reset} | options)
        return nn.Recurrent(gru.cell(form.reset, activations=(gates, form.activation)), *sizes, **options)
    if usual:
        return nn.LSTM(*sizes, **options)
    activations = tuple(map(_short, (gates, form.activation, form.activation)))
    return nn.GeneralLSTM(*sizes, **{"activations": activations} | options)


def _short(activation: Activation) -> Any:
    """The activation in its shortest form: only its name if its numbers are the defaults."""
    return activation.name if activation == Activation(activation.name) else activation


class Backwards(nn.Module):
    """A recurrent layer that begins at the last step, as with Keras' ``go_backwards=True``.

    The output is in the order of computation: that of the last step comes first. ``output, states = layer(x, states_0,
    lengths=, mask=)``, as for gl.Recurrent.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @property
    def output_size(self) -> int:
        """The size of output's last axis."""
        return int(self.layer.output_size)

    def forward(self, x: Any, hx: Any = None, lengths: Any = None, mask: Any = None) -> Any:
        """See the class."""
        x = x if isinstance(x, Tensor) else tensor(x)
        axis = 1 if self.layer.batch_first and x.ndim == 3 else 0
        if lengths is not None:
            mask = mask_of(lengths, x.shape[axis], batch_first=axis == 1)
        return self.layer(flipped(x, axis), hx, mask=None if mask is None else flipped(mask, axis))


class Directions(nn.Module):
    """A bidirectional layer made of two layers, for directions that differ in their options.

    ``output, states = layer(x, states_0, lengths=, mask=)``, as for gl.Recurrent with ``bidirectional=True``.
    """

    bidirectional = True

    def __init__(self, forward: Any, backward: Any, merge: str) -> None:
        self.forward_layer, self.backward_layer, self.merge = forward, backward, merge
        self.batch_first = forward.batch_first

    def forward(self, x: Any, hx: Any = None, lengths: Any = None, mask: Any = None) -> Any:
        """See the class."""
        x = x if isinstance(x, Tensor) else tensor(x)
        axis = 1 if self.batch_first and x.ndim == 3 else 0
        several = isinstance(hx, tuple | list)
        first, second = [
            None if hx is None else tuple(h[k : k + 1] for h in hx) if several else hx[k : k + 1] for k in (0, 1)
        ]
        y, last = self.forward_layer(x, first, lengths=lengths, mask=mask)
        z, last_back = self.backward_layer(x, second, lengths=lengths, mask=mask)
        joined = [nn.concatenate(pair) for pair in zip(_tuple(last), _tuple(last_back), strict=True)]
        y = merged(y, flipped(z, axis), self.merge)
        return y, joined[0] if len(joined) == 1 else tuple(joined)


def _tuple(states: Any) -> tuple[Any, ...]:
    return states if isinstance(states, tuple) else (states,)


def merged(forward: Tensor, backward: Tensor, merge: str) -> Any:
    """Merge the outputs of both directions; ``merge`` is one of gl.Recurrent's names."""
    if merge == "concat":
        return nn.concatenate([forward, backward], axis=-1)
    if merge == "mul":
        return forward * backward
    return (forward + backward) * (0.5 if merge == "mean" else 1.0)


def flipped(x: Any, axis: int) -> Any:
    """x with the order of its steps reversed."""
    return x[(slice(None),) * axis + (slice(None, None, -1),)]


def mask_of(lengths: Any, steps: int, batch_first: bool = True) -> np.ndarray:
    """The mask of the steps within the lengths, for sequences padded at their ends: bool (B, T), or (T, B)."""
    lengths = lengths.data if isinstance(lengths, Tensor) else lengths
    counts = np.asarray(lengths.get() if hasattr(lengths, "get") else lengths)
    mask = np.arange(steps) < counts[:, None]
    return mask if batch_first else mask.T
