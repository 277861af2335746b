"""Makes whole models from Keras' files: a chain of layers as one gpulstm model with the same outputs."""

import contextlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm import nn
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.keras import steps
from gpulstm.io.keras.activations import of_layer
from gpulstm.io.keras.build import mask_of
from gpulstm.io.keras.config import DEEPEST, RECURRENT, Entry, plain
from gpulstm.io.keras.row import in_a_row
from gpulstm.tape import Tensor, apply, tensor

if TYPE_CHECKING:
    from gpulstm.io.keras import KerasFile

_NOTHING = {
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "InputLayer",
    "SpatialDropout1D",
}  # fmt: skip
# Layers that compute along the last axis alone: TimeDistributed can apply them to all steps at once.
_LAST_AXIS = {"Activation", "BatchNormalization", "Dense", "ELU", "LayerNormalization", "LeakyReLU", "ReLU"}
_WHOLE = {"Sequential", "Functional", "Model"}


class KerasModel(nn.Sequential):
    """The layers of a Keras model one after the other: ``y = model(x)``, batch first, x (B, T, ...).

    ``mask`` (B, T) is True for the valid steps of the input; you can pass ``lengths`` (B,) instead. Without them
    Embedding (mask_zero) and Masking layers compute the mask. Raises ShapeError for a ``reset``, and the errors of the
    layers.

    >>> gl.io.keras.KerasModel(gl.Linear(3, 2))(np.zeros((5, 3), np.float32)).shape
    (5, 2)
    """

    def forward(self, x: Any, *, lengths: Any = None, mask: Any = None, reset: Any = None) -> Tensor:
        """Apply all layers to x."""
        if reset is not None:
            raise ShapeError(f"reset: expected None, as Keras' layers have no resets, got {reset!r}")
        x = x if isinstance(x, Tensor) or not hasattr(x, "dtype") else tensor(x)
        if lengths is not None:
            mask = mask_of(lengths, np.shape(x)[1])
        mask = mask.data if isinstance(mask, Tensor) else mask
        for layer in self.layers:
            if isinstance(layer, steps.Step):
                x, mask = layer(x, mask)
            else:
                x = layer(x)
        return x


def chain(file: "KerasFile", root: Entry, device: Any) -> KerasModel:
    """Make the model that a file's configuration describes; raises FormatError unless it is a chain of known layers."""
    maker = _Maker(file, device)
    maker.model(root, "")
    return KerasModel(*maker.layers)


class _Maker:
    """Makes the steps of a model, one layer after the other."""

    def __init__(self, file: "KerasFile", device: Any) -> None:
        self.file, self.device, self.layers = file, device, list[nn.Module]()
        self.rules: dict[str, Callable[[Entry, str], None]] = {
            "Activation": self._activation, "BatchNormalization": self._batch_norm, "Dense": self._dense,
            "ELU": self._elu, "Embedding": self._embedding, "Flatten": self._flatten,
            "GlobalAveragePooling1D": self._average, "GlobalMaxPooling1D": self._maximum,
            "LayerNormalization": self._layer_norm, "LeakyReLU": self._leaky, "Masking": self._masking,
            "ReLU": self._relu, "RepeatVector": self._repeat, "Reshape": self._reshape, "Softmax": self._softmax,
            "TimeDistributed": self._each_step,
        }  # fmt: skip

    def model(self, entry: Entry, prefix: str) -> None:
        """Make the steps of all layers of a model."""
        for layer in in_a_row(entry, f"{self.file.path}, {prefix.rstrip('/') or 'the model'}"):
            self.layer(layer, f"{prefix}{layer.name}")

    def layer(self, entry: Entry, name: str) -> None:
        """Make the steps of one layer; ``name`` is its name in the file."""
        if name.count("/") > DEEPEST:
            raise FormatError(f"{self.file.path}: expected layers at most {DEEPEST} deep, got {name:.100}")
        if entry.kind in _WHOLE:
            self.model(entry, f"{name}/")
        elif entry.recurrent:
            self._recurrent(entry, name)
        elif entry.kind == "RNN" and (cell := entry.inner("cell")) is not None and cell.cells:
            self._stack(entry, cell, name)
        elif entry.kind in self.rules:
            self.rules[entry.kind](entry, name)
        elif entry.kind not in _NOTHING:
            known = ", ".join(sorted({*self.rules, *_NOTHING, "Bidirectional", "GRU", "LSTM", "RNN", "SimpleRNN"}))
            raise FormatError(f"{self._where(name)}: expected one of the layers {known}; got {entry.kind}")

    def _where(self, name: str) -> str:
        return f"{self.file.path}, {name}"

    def _weights(self, name: str, kind: str) -> dict[str, np.ndarray]:
        layer = self.file.layers.get(name)
        if layer is None or layer.kind != kind or not layer.told:
            raise FormatError(f"{self._where(name)}: expected the weights of a {kind}, got none that match for certain")
        return layer.weights

    def _refuse(self, name: str, entry: Entry, **usual: Any) -> None:
        """Raises FormatError for an option with another value than the supported ones."""
        for key, values in usual.items():
            if key in entry.config and entry.config[key] not in values:
                want = " or ".join(map(repr, values))
                raise FormatError(f"{self._where(name)}: {key}: expected {want}, got {str(entry.config[key])!r:.100}")

    def _number(self, entry: Entry, name: str, keys: tuple[str, ...], usual: float) -> float:
        value = next((entry.config[key] for key in keys if key in entry.config), usual)
        value = value.get("value") if isinstance(value, dict) else value  # TensorFlow sometimes stores a dict
        if isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):
                return float(value)
        raise FormatError(f"{self._where(name)}: {keys[0]}: expected a number, got {str(value)!r:.100}")

    def _recurrent(self, entry: Entry, name: str) -> None:
        options = entry.options()
        self._refuse(name, Entry("", "", options, {}), return_state=(False, None), time_major=(False, None))
        if options.get("stateful"):
            warnings.warn(f"{self._where(name)}: stateful: this model starts every call from zero states", stacklevel=2)
        self._sequence(name, bool(options.get("return_sequences")), options)

    def _stack(self, entry: Entry, stack: Entry, name: str) -> None:
        """The cells of StackedRNNCells, one layer after the other, each over the whole sequence."""
        self._refuse(name, entry, go_backwards=(False,), return_state=(False,), time_major=(False,))
        for number, cell in enumerate(stack.cells, 1):
            inside = number < len(stack.cells)
            whole = inside or bool(entry.config.get("return_sequences"))
            self._sequence(f"{name}/{stack.name}/{cell.name}", whole, entry.config)

    def _sequence(self, name: str, whole: bool, options: dict[str, Any]) -> None:
        if name not in self.file.layers or self.file.layers[name].kind not in RECURRENT:
            raise FormatError(f"{self._where(name)}: expected the layer's weights, got none that match for certain")
        zeros = bool(options.get("zero_output_for_mask"))
        if self.file.layers[name].bidirectional and not zeros:
            zeros = not self.file.version_of.standalone  # TensorFlow's Bidirectional ignores the option
        made = self.file.layer(name, device=self.device)
        if not whole or zeros or not getattr(made, "bidirectional", False):
            self.layers.append(steps.Recurrence(made, whole, zeros))
        else:
            apart = self.file.layer(name, device=self.device, merge="concat")
            self.layers.append(steps.Recurrence(apart, whole, zeros, made.merge))

    def _dense(self, entry: Entry, name: str) -> None:
        self._weights(name, "Dense")
        self.layers.append(self.file.layer(name, device=self.device))
        self._activation(entry, name)

    def _embedding(self, entry: Entry, name: str) -> None:
        self._weights(name, "Embedding")
        made = self.file.layer(name, device=self.device)
        self.layers.append(steps.Symbols(made) if entry.config.get("mask_zero") else made)

    def _activation(self, entry: Entry, name: str) -> None:
        value = plain(entry.config.get("activation"))
        function = of_layer(value, self.file.version_of, f"{self._where(name)}: activation")
        if isinstance(function, nn.Module):
            self.layers.append(function)
        elif function is not None:
            label = value if isinstance(value, str) else ", ".join(map(str, value))
            self.layers.append(steps.Function(label, function))

    def _leaky(self, entry: Entry, name: str) -> None:
        self.layers.append(nn.LeakyReLU(self._number(entry, name, ("negative_slope", "alpha"), 0.3)))

    def _elu(self, entry: Entry, name: str) -> None:
        self.layers.append(nn.ELU(self._number(entry, name, ("alpha",), 1.0)))

    def _relu(self, entry: Entry, name: str) -> None:
        self._refuse(name, entry, max_value=(None,), negative_slope=(0, None), threshold=(0, None))
        self.layers.append(nn.ReLU())

    def _softmax(self, entry: Entry, name: str) -> None:
        self._refuse(name, entry, axis=(-1,))
        self.layers.append(nn.Softmax())

    def _masking(self, entry: Entry, name: str) -> None:
        self.layers.append(steps.Masking(self._number(entry, name, ("mask_value",), 0.0)))

    def _flatten(self, entry: Entry, name: str) -> None:
        self._refuse(name, entry, data_format=("channels_last", None))
        self.layers.append(steps.Function("Flatten", lambda x: x.reshape(x.shape[0], -1), masked=False))

    def _reshape(self, entry: Entry, name: str) -> None:
        shape = entry.config.get("target_shape")
        if not isinstance(shape, list) or not all(type(n) is int and n >= -1 for n in shape):
            raise FormatError(f"{self._where(name)}: target_shape: expected integers, got {str(shape)!r:.100}")
        self.layers.append(steps.Function(f"Reshape {shape}", lambda x: x.reshape(x.shape[0], *shape), masked=False))

    def _repeat(self, entry: Entry, name: str) -> None:
        count = entry.config.get("n")
        if type(count) is not int or not 0 < count <= 2**31:
            raise FormatError(f"{self._where(name)}: n: expected an integer above 0, got {str(count)!r:.100}")
        self.layers.append(steps.Function(f"Repeat {count}", lambda x: nn.stack([x] * count, axis=1), masked=False))

    def _average(self, entry: Entry, name: str) -> None:
        self._refuse(name, entry, data_format=("channels_last", None), keepdims=(False,))
        self.layers.append(steps.Average())

    def _maximum(self, entry: Entry, name: str) -> None:
        self._refuse(name, entry, data_format=("channels_last", None), keepdims=(False,))
        self.layers.append(steps.Function("Maximum", lambda x: apply(steps.maximum, x), masked=False))

    def _batch_norm(self, entry: Entry, name: str) -> None:
        self._refuse(name, entry, mode=(0,))
        weights = self._weights(name, "BatchNormalization")
        mean, variance = weights["moving_mean"], weights["moving_variance"]
        scale = 1 / np.sqrt(variance + np.asarray(self._number(entry, name, ("epsilon",), 1e-3), variance.dtype))
        scale = scale * weights.get("gamma", np.ones_like(scale))
        shift = weights.get("beta", np.zeros_like(scale)) - mean * scale
        self._over_last(entry, name, steps.Affine(scale, shift, self.device))

    def _layer_norm(self, entry: Entry, name: str) -> None:
        self._refuse(name, entry, rms_scaling=(False,))
        weights = self._weights(name, "LayerNormalization")
        gamma, beta = weights.get("gamma"), weights.get("beta")
        like = next(iter(weights.values()), None)
        if like is None or any(value.shape != like.shape or value.ndim != 1 for value in weights.values()):
            raise FormatError(f"{self._where(name)}: expected gamma or beta of one axis, got neither")
        eps = self._number(entry, name, ("epsilon",), 1e-3)
        made = nn.LayerNorm(len(like), eps, bias=beta is not None, device=self.device, dtype=like.dtype)
        made.load_state_dict(
            {"weight": np.ones_like(like) if gamma is None else gamma} | ({} if beta is None else {"bias": beta})
        )
        self._over_last(entry, name, made)

    def _over_last(self, entry: Entry, name: str, made: nn.Module) -> None:
        """A normalisation; its axis must be the last one of x, which is checked when it runs."""
        axis = self._axis(entry, name)
        self.layers.append(made if axis == -1 else steps.OverLast(made, axis))

    def _axis(self, entry: Entry, name: str) -> int:
        """The one axis of a normalisation."""
        axis = entry.config.get("axis", -1)
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        if type(axis) is not int or axis < -1 or axis == 0:
            raise FormatError(f"{self._where(name)}: axis: expected the last one, got {str(axis)!r:.100}")
        return axis

    def _each_step(self, entry: Entry, name: str) -> None:
        inner = entry.inner("layer")
        if inner is None:
            raise FormatError(f"{self._where(name)}: expected TimeDistributed of a layer, got none")
        if inner.kind in _LAST_AXIS:
            self.layer(inner, f"{name}/{inner.name}")
            return
        maker = _Maker(self.file, self.device)
        maker.layer(inner, f"{name}/{inner.name}")
        self.layers.append(steps.EachStep(KerasModel(*maker.layers)))
