"""The keyword options of every recurrent layer, and the checks of a layer's arguments."""

import inspect
import warnings
from typing import Any, TypedDict, Unpack, get_args, get_origin

import numpy as np

from gpulstm.backend import Device
from gpulstm.errors import ShapeError
from gpulstm.nn.module import check_flags, check_rate

MERGES = ("concat", "sum", "mean", "mul")


class Options(TypedDict, total=False):
    """The keyword options of every recurrent layer; see Recurrent."""

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
    """Replace ``**options: Unpack[...]`` in the signature of cls by the options of ``base``, for help() and editors."""
    init: Any = vars(cls).get("__init__")
    if init is None or get_origin(getattr(init, "__annotations__", {}).get("options")) is not Unpack:
        return
    own = inspect.signature(init)
    (names,) = get_args(init.__annotations__["options"])
    usual = inspect.signature(base, eval_str=True).parameters  # the file of cls may not import their types
    parameters = [parameter for name, parameter in own.parameters.items() if name != "options"]
    init.__signature__ = own.replace(parameters=[*parameters, *(usual[name] for name in names.__annotations__)])


def check_layer(layer: Any, merge: str, bias: bool, num_layers: int, dropout: float, **flags: Any) -> None:
    """Check the arguments of a recurrent layer against each other and against its cell.

    ``layer`` already has cell, input_size, hidden_size and proj_size. Raises ShapeError or DTypeError, naming the
    argument; warns if dropout has no effect.
    """
    cell, proj_size = layer.cell, layer.proj_size
    check_rate("dropout", dropout)
    check_flags(bias=bias, **flags)
    if proj_size and not cell.projects:
        raise ShapeError(f"proj_size: expected 0, because a {cell.name} has no projection, got {proj_size}")
    if flags["recompute"] and not cell.recurrent:
        raise ShapeError(f"recompute: expected False, because a {cell.name} stores few states anyway, got True")
    if not bias and not cell.biases:
        raise ShapeError(f"bias: expected True, because the bias of a {cell.name} is part of its equations, got False")
    if merge not in MERGES or (merge != "concat" and not flags["bidirectional"]):
        want = ", ".join(MERGES) if flags["bidirectional"] else "concat, because the layer has one direction"
        raise ShapeError(f"merge: expected {want}, got {merge!r}")
    if dropout > 0 and num_layers == 1:
        name = type(layer).__name__
        warnings.warn(f"dropout acts between layers: it has no effect, because this {name} has one layer", stacklevel=4)
