"""A layer of a recurrent network in its directions, which are computed side by side where that serves."""

from typing import Any, NamedTuple

from gpulstm import functional
from gpulstm.backend import backend_of
from gpulstm.functional import directions
from gpulstm.tape import Tensor, apply, records


class Call(NamedTuple):
    """One direction: the suffix of its parameters, and what functional.recurrent is given after x."""

    suffix: str
    arguments: list
    modes: dict[str, Any]


def outputs_of(x: Tensor, calls: list[Call], path: str, recompute: bool, **options: Any) -> list[tuple]:
    """The outputs of each direction, forward before backward."""
    options |= {"path": path, "recompute": recompute, "input_gradient": x.requires_grad}
    modes = [{**options, **call.modes, "inference": not records((x, *call.arguments))} for call in calls]
    # To recompute saves memory, of which two at once take more; the other paths gain nothing.
    if len(calls) == 2 and path in ("auto", "graph") and not recompute and directions.serves(backend_of(x.data)):
        # The tape adds the gradients of the inputs in their order: those of the later function first, as of two.
        forward, backward = calls
        both = apply(directions.both, x, *backward.arguments, x, *forward.arguments, modes=tuple(modes[::-1]))
        half = len(both) // 2
        return [both[half:], both[:half]]
    return [apply(functional.recurrent, x, *call.arguments, **m) for call, m in zip(calls, modes, strict=True)]
