"""One step of a recurrent network: a sequence of one step, without the time axis."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import cells
from gpulstm.backend import Array
from gpulstm.cells import Cell
from gpulstm.dtypes import is_floating
from gpulstm.explain import record
from gpulstm.functional.engine_loop import EngineStep, why_not
from gpulstm.functional.needs import needs
from gpulstm.functional.products import Weights
from gpulstm.functional.recurrent import recurrent
from gpulstm.threads import get_num_threads


class Steps:
    """Single steps of one cell without gradients, which repeat no checks, for loops such as text generation.

    Weights may change in place between steps.
    """

    MOST = 8  # sizes of x that are remembered

    def __init__(self) -> None:
        self._free: dict[tuple, tuple[EngineStep, list]] = {}

    def after(self, cell: Cell, x: Array, states: list, weights: list) -> list[Array] | None:
        """The states after the step, or None if ``one_step`` has to compute it.

        x, states (None for zeros) and weights are in the order of its arguments, without w_hr.
        """
        key = x.shape, x.dtype, get_num_threads()
        found = self._free.pop(key, None)  # removed while in use, so that another thread makes its own
        if found is None or any(a is not b for a, b in zip(weights, found[1], strict=True)):
            if not _steps_alone(cell, x, weights):
                return None
            w_ih, w_hh, b_ih, b_hh = weights
            found = EngineStep(cell, x.dtype, len(x), Weights(w_ih, w_hh, b_ih, b_hh, None, ())), weights
        step, _ = found
        shape, dtype = step.shape, x.dtype
        for array in (x, *states):
            if array is None:
                continue
            if not (type(array) is np.ndarray and array.dtype == dtype and array.flags.c_contiguous):
                return None
            if array is not x and array.shape != shape:
                return None
        after = step(x, states)
        record(cell.name, "engine", "cpu", dtype, (1, *x.shape, shape[1]), False, "")
        if len(self._free) >= self.MOST:
            self._free.clear()
        self._free[key] = found
        return after


def _steps_alone(cell: Cell, x: Array, weights: list) -> bool:
    """Whether the engine can take these arrays as they are, so that later steps need no further checks."""
    if cell.extra or not cell.recurrent or x.ndim != 2 or x.dtype.itemsize < 4 or not is_floating(x.dtype):
        return False
    arrays = [weight for weight in weights if weight is not None]
    if not all(type(a) is np.ndarray and a.dtype == x.dtype and a.flags.c_contiguous for a in (x, *arrays)):
        return False
    H = weights[1].shape[-1]
    rows = len(cell.gates) * H
    wanted = ((rows, x.shape[1]), (rows, H), (rows,), (rows,))
    fits = all(weight is None or weight.shape == want for weight, want in zip(weights, wanted, strict=True))
    return fits and not why_not(cell)


@needs(None, None)
def one_step(
    x: Array, *arguments: Array | None, cell: str | Cell = "lstm", **options: Any
) -> tuple[tuple[Array, ...], Callable[..., tuple]]:
    """``(h, c), pullback = one_step(x, h0, c0, w_ih, w_hh, ...)``, with the arguments and options of ``recurrent``.

    x (B, D) or (D,), states (B, H) or (H,). ``pullback(dh, dc)`` returns the gradients of x and of the arguments.
    Raises what ``recurrent`` does.
    """
    alone, count = x.ndim == 1, len(cells.find(cell).states)

    def taken(states: Any, key: int | None) -> Any:
        """For a single sequence, add the batch axis (None) or remove it (0)."""
        return [None if state is None else state[key] for state in states] if alone else states

    if alone:
        arguments = (*taken(arguments[:count], None), *arguments[count:])
    outputs, pullback = recurrent(x[None, None] if alone else x[None], *arguments, cell=cell, **options)

    def back(*dstates: Array | None) -> tuple:
        dx, *gradients = pullback(None, *taken(dstates, None))
        dx = None if dx is None else dx.reshape(x.shape)
        return dx, *taken(gradients[:count], 0), *gradients[count:]

    return tuple(taken(outputs[1:], 0)), back
