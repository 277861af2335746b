"""Converts Keras' arrays to gpulstm's: other names, gates stacked along the first axis in another order, two biases.

Each function takes the result of a Keras layer's ``get_weights()``: ``lstm(*layer.get_weights())``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.errors import ShapeError
from gpulstm.io.keras.file import ARRAYS, KerasLayer


def lstm(kernel: Any, recurrent_kernel: Any, bias: Any = None) -> dict[str, np.ndarray]:
    """Convert a Keras LSTM's ``get_weights()`` to the state dict of a gl.LSTM.

    kernel (D, 4H), recurrent_kernel (H, 4H), bias (4H,) or None; gates i, f, c, o. Keras has one bias, which becomes
    bias_ih; bias_hh is zero. Raises ShapeError for other shapes.

    >>> gl.io.keras.lstm(np.ones((3, 16)), np.ones((4, 16)), np.ones(16))["weight_ih_l0"].shape
    (16, 3)
    """
    return _recurrent((kernel, recurrent_kernel, bias), (0, 1, 2, 3))


def gru(kernel: Any, recurrent_kernel: Any, bias: Any = None) -> dict[str, np.ndarray]:
    """Convert a Keras GRU's ``get_weights()`` to the state dict of a gl.GRU.

    kernel (D, 3H), recurrent_kernel (H, 3H); gates z, r, h in Keras, r, z, n in gpulstm. A bias (2, 3H), from
    ``reset_after=True``, becomes bias_ih and bias_hh. A bias (3H,), from ``reset_after=False``, becomes bias_ih with
    bias_hh zero, for a ``gl.GRU(reset="before")``. Raises ShapeError for other shapes.

    >>> gl.io.keras.gru(np.ones((3, 12)), np.ones((4, 12)), np.ones((2, 12)))["weight_ih_l0"].shape
    (12, 3)
    """
    return _recurrent((kernel, recurrent_kernel, bias), (1, 0, 2))


def simple_rnn(kernel: Any, recurrent_kernel: Any, bias: Any = None) -> dict[str, np.ndarray]:
    """Convert a Keras SimpleRNN's ``get_weights()`` to the state dict of a gl.RNN.

    kernel (D, H), recurrent_kernel (H, H), bias (H,) or None. Raises ShapeError for other shapes.

    >>> gl.io.keras.simple_rnn(np.ones((3, 4)), np.ones((4, 4)))["weight_ih_l0"].shape
    (4, 3)
    """
    return _recurrent((kernel, recurrent_kernel, bias), (0,))


def bidirectional(forward: dict[str, np.ndarray], backward: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Join the state dicts of a bidirectional layer's two directions into one.

    For a Keras Bidirectional's ``weights = get_weights()``, pass ``lstm(*weights[:3])`` and ``lstm(*weights[3:])``.
    Raises no error of its own.

    >>> one = gl.io.keras.simple_rnn(np.ones((3, 4)), np.ones((4, 4)))
    >>> sorted(gl.io.keras.bidirectional(one, one))
    ['weight_hh_l0', 'weight_hh_l0_reverse', 'weight_ih_l0', 'weight_ih_l0_reverse']
    """
    return forward | {f"{name}_reverse": value for name, value in backward.items()}


def dense(kernel: Any, bias: Any = None) -> dict[str, np.ndarray]:
    """Convert a Keras Dense's ``get_weights()`` to the state dict of a gl.Linear.

    kernel (D, units) -> weight (units, D), bias (units,) or None. Raises ShapeError for other shapes.

    >>> gl.io.keras.dense(np.ones((3, 2)))["weight"].shape
    (2, 3)
    """
    kernel = np.asarray(kernel)
    if kernel.ndim != 2:
        raise ShapeError(f"kernel: expected (inputs, units), got {kernel.shape}")
    state = {"weight": np.ascontiguousarray(kernel.T)}
    if bias is not None:
        state["bias"] = np.asarray(bias)
        if state["bias"].shape != kernel.shape[1:]:
            raise ShapeError(f"bias: expected {kernel.shape[1:]} = (units,), got {state['bias'].shape}")
    return state


def embedding(embeddings: Any) -> dict[str, np.ndarray]:
    """Convert a Keras Embedding's ``get_weights()``, embeddings (V, D), to the state dict of a gl.Embedding.

    Raises ShapeError for another shape.

    >>> gl.io.keras.embedding(np.ones((10, 4)))["weight"].shape
    (10, 4)
    """
    if np.ndim(embeddings) != 2:
        raise ShapeError(f"embeddings: expected (ids, size), got {np.shape(embeddings)}")
    return {"weight": np.asarray(embeddings)}


_CONVERTERS: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "LSTM": lstm, "GRU": gru, "SimpleRNN": simple_rnn, "Dense": dense, "Embedding": embedding,
}  # fmt: skip


def _recurrent(weights: tuple[Any, Any, Any], order: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Reorder the gates of Keras' arrays, and stack them along the first axis instead of the last."""
    kernel, recurrent = np.asarray(weights[0]), np.asarray(weights[1])
    if recurrent.ndim != 2 or recurrent.shape[1] != len(order) * recurrent.shape[0]:
        raise ShapeError(f"recurrent_kernel: expected (H, {len(order)}*H), got {recurrent.shape}")
    hidden, columns = recurrent.shape
    if kernel.ndim != 2 or kernel.shape[1] != columns:
        raise ShapeError(f"kernel: expected (inputs, {columns}) = (inputs, gates*hidden), got {kernel.shape}")

    def turned(array: np.ndarray) -> np.ndarray:
        gates = array.reshape(*array.shape[:-1], len(order), hidden)
        return np.ascontiguousarray(gates[..., list(order), :].reshape(array.shape).T)

    state = {"weight_ih_l0": turned(kernel), "weight_hh_l0": turned(recurrent)}
    if weights[2] is not None:
        bias = np.asarray(weights[2])
        if bias.shape != (columns,) and (len(order) != 3 or bias.shape != (2, columns)):
            raise ShapeError(f"bias: expected ({columns},) = (gates*hidden,), got {bias.shape}")
        both = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
        state |= {"bias_ih_l0": turned(both[0]), "bias_hh_l0": turned(both[1])}
    return state


def converted(layer: KerasLayer) -> dict[str, np.ndarray]:
    """The state dict of one layer of a file; raises ShapeError."""
    if layer.kind not in _CONVERTERS:
        raise ShapeError(f"expected one of {', '.join(_CONVERTERS)}, alone or Bidirectional, got {layer.kind}")
    convert, directions = _CONVERTERS[layer.kind], []
    for prefix in ("forward/", "backward/") if layer.bidirectional else ("",):
        names = ARRAYS[layer.kind]
        directions.append(convert(*(layer.weights.get(f"{prefix}{name}") for name in names)))
    return bidirectional(*directions) if layer.bidirectional else directions[0]
