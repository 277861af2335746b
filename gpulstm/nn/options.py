"""What every recurrent layer takes beside its sizes, and the checks of a layer's arguments."""

import inspect
import warnings
from typing import Any, TypedDict, Unpack, get_args, get_origin

import numpy as np

from gpulstm.backend import Device
from gpulstm.errors import ShapeError
from gpulstm.nn.module import check_flags, check_rate

MERGES = ("concat", "sum", "mean", "mul")


class Options(TypedDict, total=False):
    """What every recurrent layer takes by keyword; Recurrent says what each is."""

    merge: str
    return_sequences: bool
    regularize: Any
    init: str
    forget_bias: float | None
    recompute: bool
    device: "str | Device | None"
    dtype: Any
    generator: np.random.Generator | None
    path: str


def spell_out(cls: type, base: type) -> None:
    """Name what ``cls(..., **options: Unpack[...])`` hands on to ``base`` in its signature, for help() and editors."""
    init: Any = vars(cls).get("__init__")
    if init is None or get_origin(getattr(init, "__annotations__", {}).get("options")) is not Unpack:
        return
    own = inspect.signature(init)
    (names,) = get_args(init.__annotations__["options"])
    usual = inspect.signature(base, eval_str=True).parameters  # whose types may have no name where cls stands
    parameters = [parameter for name, parameter in own.parameters.items() if name != "options"]
    init.__signature__ = own.replace(parameters=[*parameters, *(usual[name] for name in names.__annotations__)])


def check_layer(layer: Any, merge: str, bias: bool, num_layers: int, dropout: float, **flags: Any) -> None:
    """Hold the arguments of a recurrent layer against each other and its cell.

    ``layer`` has its cell, input_size, hidden_size and proj_size. Raises ShapeError or DTypeError, naming the
    argument; warns of a dropout that changes nothing.
    """
    cell, proj_size = layer.cell, layer.proj_size
    check_rate("dropout", dropout)
    check_flags(bias=bias, **flags)
    if proj_size and not cell.projects:
        raise ShapeError(f"proj_size: expected 0, as a {cell.name} has no projection, got {proj_size}")
    if flags["recompute"] and not cell.recurrent:
        raise ShapeError(f"recompute: expected False, as a {cell.name} keeps few states anyway, got True")
    if not bias and not cell.biases:
        raise ShapeError(f"bias: expected True, as the bias of a {cell.name} belongs to its equations, got False")
    if merge not in MERGES or (merge != "concat" and not flags["bidirectional"]):
        want = ", ".join(MERGES) if flags["bidirectional"] else "concat, as the layer has one direction"
        raise ShapeError(f"merge: expected {want}, got {merge!r}")
    if dropout > 0 and num_layers == 1:
        name = type(layer).__name__
        warnings.warn(f"dropout acts between layers, and this {name} has one: it changes nothing", stacklevel=4)
