"""Checks that batches and recurrent layers agree on whether time or the examples come first."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from gpulstm.errors import ShapeError
from gpulstm.nn import Module, Recurrent
from gpulstm.train.batch import leaves, padded_arrays, plain


class Axes:
    """Compares the inputs of a model's recurrent layers with the batches, until one batch has settled the question.

    Only batches of a data set with an attribute ``batch_first`` are checked. A layer is wrong if its x has the same
    two leading axes as an array of the batch, but the layer reads them in the other order. If the model transposes x
    itself, the axes differ and nothing is wrong. If both axes have the same length, the next batch is checked.
    """

    def __init__(self, model: Module, batches: Any) -> None:
        self._batch_first = getattr(batches, "batch_first", None)
        self._layers = {id(m): (name, m) for name, m in model.named_modules() if isinstance(m, Recurrent)}
        self._looking = isinstance(self._batch_first, bool) and bool(self._layers)

    def call(self, loss: Callable, model: Module, batch: Any, state: Any) -> Any:
        """``loss(model, batch, state)``; raises ShapeError where a layer reads its axes the wrong way."""
        if not self._looking:
            return loss(model, batch, state)
        # A time-first batch may also have arrays with the examples first: padded arrays, if any, are the sequences.
        held = plain(batch)
        arrays = [] if self._batch_first else list(padded_arrays(held))
        leading = {array.shape[:2] for array in arrays or leaves(held) if array.ndim >= 2}
        leading = {axes for axes in leading if axes[0] != axes[1]}

        def look(layer: Module, args: tuple, kwargs: dict) -> None:
            x: Any = args[0] if args else kwargs.get("x")
            mixed = getattr(layer, "batch_first", None) != self._batch_first
            if mixed and getattr(x, "ndim", 0) == 3 and x.shape[:2] in leading:
                raise ShapeError(self._words(layer, tuple(x.shape)))

        with ExitStack() as hooks:
            for _, layer in self._layers.values():
                hooks.enter_context(layer.register_forward_pre_hook(look, with_kwargs=True))
            result = loss(model, batch, state)
        self._looking = not leading
        return result

    def _words(self, layer: Any, shape: tuple[int, ...]) -> str:
        name, _ = self._layers[id(layer)]
        kind = type(layer).__name__
        made, read = ("(B, T, ...)", "(T, B, ...)") if self._batch_first else ("(T, B, ...)", "(B, T, ...)")
        others = "" if self._batch_first else ", the batches with batch_first=True"
        return (
            f"x of {name or kind}: the batches are {made}, but this {kind} reads x {shape} as {read}; "
            f"make the layer with batch_first={self._batch_first}{others}, or transpose x before the layer"
        )
