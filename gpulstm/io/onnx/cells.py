"""The cells and layers of gpulstm that compute the same as ONNX' recurrent operators."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpulstm import nn
from gpulstm.cells import Cell, general, gru, lstm, peephole, rnn
from gpulstm.cells.activation import Activation
from gpulstm.errors import FormatError
from gpulstm.io.onnx.attributes import DEFAULTS

if TYPE_CHECKING:
    from gpulstm.io.onnx.operator import Operator

# What all levels of one layer share.
_SHARED = ("kind", "direction", "activations", "clip", "input_forget", "linear_before_reset", "layout", "hidden_size")


def cell_of(operator: "Operator", activations: tuple[Activation, ...]) -> Cell:
    """The cell of one direction of an operator."""
    clip, peepholes = operator.clip, "weight_ch" in operator.weights[0]
    if operator.kind == "RNN":
        return rnn.cell(activations[0], clip)
    if operator.kind == "GRU":
        return gru.cell(_reset(operator), activations=(activations[0], activations[1]), clip=clip)
    if activations == DEFAULTS["LSTM"] and clip is None and not operator.input_forget:
        return peephole.DIAGONAL if peepholes else lstm.CELL
    return general.cell((activations[0], activations[1], activations[2]), clip, peepholes, operator.input_forget)


def layer_of(operators: Sequence["Operator"], ignore_states: bool = False, **options: Any) -> nn.Recurrent:
    """Make one layer with the operators as its levels; see Operator.layer."""
    first = operators[0]
    _check_levels(operators)
    for operator in operators:
        if operator.held and not ignore_states:
            got = f"{', '.join(operator.held)} in the file"
            raise FormatError(
                f"{operator.name!r}: expected no initial states and lengths, as a layer does not hold them, got {got}; "
                "use run, or ignore_states=True and pass operator.states and operator.sequence_lens at each call"
            )
    options = {
        "bias": "bias_ih" in first.weights[0],
        "batch_first": first.layout == 1,
        "bidirectional": len(first.weights) == 2,
        "device": "cpu",
        "dtype": first.weights[0]["weight_ih"].dtype,
        **options,
    }
    layer = _made(first, (first.input_size, first.hidden_size, len(operators)), options)
    state: dict[str, Any] = {}
    for level, operator in enumerate(operators):
        for suffix, weights in zip(("", "_reverse"), operator.weights, strict=False):
            state |= {f"{name}_l{level}{suffix}": array for name, array in weights.items()}
    layer.load_state_dict(state)
    return layer


def _made(operator: "Operator", sizes: tuple[int, int, int], options: dict[str, Any]) -> nn.Recurrent:
    """Make the layer, with the most specific class."""
    cell, activations = operator.cells[0], operator.activations[0]
    if operator.kind == "RNN":
        return nn.RNN(*sizes, nonlinearity=activations[0], clip=operator.clip, **options)
    if operator.kind == "GRU":
        if activations == DEFAULTS["GRU"] and operator.clip is None:
            return nn.GRU(*sizes, reset=_reset(operator), **options)
        return nn.Recurrent(cell, *sizes, **options)
    if cell is lstm.CELL:
        return nn.LSTM(*sizes, **options)
    if cell is peephole.DIAGONAL:
        return nn.PeepholeLSTM(*sizes, **options)
    return nn.GeneralLSTM(
        *sizes,
        activations=(activations[0], activations[1], activations[2]),
        clip=operator.clip,
        peepholes="weight_ch" in operator.weights[0],
        coupled=operator.input_forget,
        **options,
    )


def _reset(operator: "Operator") -> str:
    return "after" if operator.linear_before_reset else "before"


def _check_levels(operators: Sequence["Operator"]) -> None:
    """Raises FormatError unless the operators can be the levels of one layer."""
    first = operators[0]
    if first.direction == "reverse":
        raise FormatError(
            f"{first.name!r}: expected direction forward or bidirectional for a layer, got reverse; use run"
        )
    if any(each != first.activations[0] for each in first.activations):
        raise FormatError(f"{first.name!r}: expected the same activations in both directions for a layer; use run")
    width = len(first.weights) * first.hidden_size
    for level, operator in enumerate(operators):
        for option in _SHARED:
            want, got = getattr(first, option), getattr(operator, option)
            if got != want:
                raise FormatError(f"{operator.name!r}: expected {option} {want}, as {first.name!r} has, got {got}")
        if operator.weights[0].keys() != first.weights[0].keys():
            want, got = (", ".join(each.weights[0]) for each in (first, operator))
            raise FormatError(f"{operator.name!r}: expected {want}, as {first.name!r} has, got {got}")
        if level and operator.input_size != width:
            got = operator.input_size
            raise FormatError(f"{operator.name!r}: expected input size {width}, from the level below, got {got}")
