"""Keras' activations as activations of gpulstm's cells, and as layers or functions of Tensors."""

from collections.abc import Callable
from typing import Any

from gpulstm import functional, nn
from gpulstm.cells.activation import Activation, of
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.keras.versions import Version
from gpulstm.tape import Tensor, apply

_CELLS: dict[str, Any] = {
    "tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu", "linear": "affine", "elu": "elu", "softsign": "softsign",
    "softplus": "softplus", "leaky_relu": ("leaky_relu", 0.2),
}  # fmt: skip
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017


def of_cell(value: Any, version: Version, where: str) -> Activation:
    """The activation of a cell, by Keras' name or in a form that cells.activation takes; None is linear, as in Keras.

    Raises FormatError for an activation that cells lack, and for hard_sigmoid if the version is not known.
    """
    if value == "hard_sigmoid":
        if version.hard_sigmoid is None:
            raise FormatError(
                f"{where}: expected a known version of Keras, as hard_sigmoid depends on it, got "
                f"{version.text or 'none'}; give ('hard_sigmoid', 0.2, 0.5) for that of Keras 1 and 2, "
                "('hard_sigmoid', 1 / 6, 0.5) for Keras 3"
            )
        value = version.hard_sigmoid
    if value is None or isinstance(value, str):
        value = "linear" if value is None else value
        if value not in _CELLS:
            raise FormatError(f"{where}: expected one of {', '.join([*_CELLS, 'hard_sigmoid'])}, got {value!r}")
        value = _CELLS[value]
    try:
        return of(value)
    except ShapeError as error:
        raise FormatError(f"{where}: {error}") from error


def _selu(x: Tensor) -> Tensor:
    return _SELU_SCALE * apply(functional.activation, x, form=Activation("elu", _SELU_ALPHA))


def _relu6(x: Tensor) -> Tensor:
    return nn.relu(x) - nn.relu(x - 6)


# As layers of gpulstm, or as functions if it has no such layer.
_LAYERS: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU, "elu": nn.ELU, "softsign": nn.Softsign,
    "softplus": nn.Softplus, "leaky_relu": lambda: nn.LeakyReLU(0.2), "softmax": nn.Softmax,
    "log_softmax": nn.LogSoftmax, "gelu": nn.GELU, "silu": nn.SiLU, "swish": nn.SiLU, "exponential": lambda: nn.exp,
    "selu": lambda: _selu, "relu6": lambda: _relu6,
}  # fmt: skip


def of_layer(value: Any, version: Version, where: str) -> Callable[[Any], Any] | None:
    """The activation of a Dense or Activation layer as a layer or function, None for linear; raises FormatError."""
    if value in (None, "linear"):
        return None
    if isinstance(value, str) and value in _LAYERS:
        return _LAYERS[value]()
    if isinstance(value, str) and value != "hard_sigmoid":
        known = ", ".join(["linear", "hard_sigmoid", *_LAYERS])
        raise FormatError(f"{where}: expected one of {known}, got {value!r}")
    activation = of_cell(value, version, where)
    return lambda x: apply(functional.activation, x, form=activation)
