"""One step of a recurrent network: a sequence of one step, without its axis."""

from collections.abc import Callable
from typing import Any

from gpulstm import cells
from gpulstm.backend import Array
from gpulstm.cells import Cell
from gpulstm.functional.needs import needs
from gpulstm.functional.recurrent import recurrent


@needs(None, None)
def one_step(
    x: Array, *arguments: Array | None, cell: str | Cell = "lstm", **options: Any
) -> tuple[tuple[Array, ...], Callable[..., tuple]]:
    """``(h, c), pullback = one_step(x, h0, c0, w_ih, w_hh, ...)``: the arguments and options of ``recurrent``.

    x (B, D) or (D,), states (B, H) or (H,). ``pullback(dh, dc)`` returns the gradients of x and of the arguments.
    Raises what ``recurrent`` does.
    """
    alone, count = x.ndim == 1, len(cells.find(cell).states)

    def taken(states: Any, key: int | None) -> Any:
        """One sequence: with the axis of the batch (None) or without it (0)."""
        return [None if state is None else state[key] for state in states] if alone else states

    if alone:
        arguments = (*taken(arguments[:count], None), *arguments[count:])
    outputs, pullback = recurrent(x[None, None] if alone else x[None], *arguments, cell=cell, **options)

    def back(*dstates: Array | None) -> tuple:
        dx, *gradients = pullback(None, *taken(dstates, None))
        dx = None if dx is None else dx.reshape(x.shape)
        return dx, *taken(gradients[:count], 0), *gradients[count:]

    return tuple(taken(outputs[1:], 0)), back
