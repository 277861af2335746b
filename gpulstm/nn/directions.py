"""Computes the directions of one recurrent layer, at the same time where that is faster."""

from typing import Any, NamedTuple

from gpulstm import functional
from gpulstm.backend import backend_of
from gpulstm.functional import directions
from gpulstm.tape import Tensor, apply, records


class Call(NamedTuple):
    """One direction: the suffix of its parameters, and the arguments of functional.recurrent after x."""

    suffix: str
    arguments: list
    modes: dict[str, Any]


def outputs_of(x: Tensor, calls: list[Call], path: str, recompute: bool, **options: Any) -> list[tuple]:
    """Return the outputs of each direction, forward before backward."""
    options |= {"path": path, "recompute": recompute, "input_gradient": x.requires_grad}
    modes = [{**options, **call.modes, "inference": not records((x, *call.arguments))} for call in calls]
    # Two directions at once need more memory, which recompute is meant to save. Other paths gain no speed.
    if len(calls) == 2 and path in ("auto", "graph") and not recompute and directions.serves(backend_of(x.data)):
        # Backward before forward: the tape then adds the gradients of x in the same order as for two separate calls.
        forward, backward = calls
        both = apply(directions.both, x, *backward.arguments, x, *forward.arguments, modes=tuple(modes[::-1]))
        half = len(both) // 2
        return [both[half:], both[:half]]
    return [apply(functional.recurrent, x, *call.arguments, **m) for call, m in zip(calls, modes, strict=True)]
