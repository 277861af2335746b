"""A call of one of gpulstm's layers as a function that torch differentiates."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from gpulstm import threads
from gpulstm.backend import Array
from gpulstm.errors import TapeError
from gpulstm.tape import Tensor, backward, enable_grad, no_grad
from gpulstm.torch.memory import as_array, as_tensor, current_stream

Inputs = Sequence[torch.Tensor | None]


class Call(NamedTuple):
    """One call of a layer with its parameters: ``compute(layer, *tensors)`` returns a flat tuple of Tensors.

    Each call copies the layer, so that calls from several Python threads do not interfere. ``seed`` seeds the noise of
    this call, so that repeating the call computes the same again.
    """

    layer: Any
    compute: Callable[..., tuple]
    parameters: tuple[str, ...]  # names of the last inputs
    training: bool
    seed: int | None
    options: dict[str, Any]

    def outputs(self, leaves: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """The layer's outputs for its inputs and parameters."""
        layer = object.__new__(type(self.layer))
        first = len(leaves) - len(self.parameters)
        own = vars(layer)
        own.update(vars(self.layer), training=self.training, _steps_again=False)
        own.update(zip(self.parameters, leaves[first:], strict=True))
        if self.seed is not None:
            own["generator"] = np.random.Generator(np.random.PCG64(self.seed))
        return self.compute(layer, *leaves[:first], **self.options)


class Record:
    """A recorded call: its outputs, and the gradients of its inputs, given those of the outputs."""

    def __init__(self, call: Call, inputs: Inputs, wanted: Sequence[bool]) -> None:
        self.leaves = [
            None if tensor is None else Tensor(as_array(tensor), requires_grad=want)
            for tensor, want in zip(inputs, wanted, strict=True)
        ]
        self.outputs = call.outputs(self.leaves)

    def gradients(self, given: Sequence[Array | None]) -> list[Array | None]:
        """One gradient for each input, or None. This works once: it frees what the gradients need."""
        backward((out, d) for out, d in zip(self.outputs, given, strict=True) if d is not None)
        return [None if leaf is None else leaf.grad for leaf in self.leaves]


class _Function(torch.autograd.Function):
    """A ``Call`` as a function of torch's autograd.

    The record holds everything that the gradients need. It is an attribute of a token, a tensor that torch saves beside
    the inputs and the outputs. Hooks on saved tensors (checkpoints, offloading to the host) bring the token back
    without it. Then, and when gradients are asked for again, backward repeats the call from the inputs.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        with current_stream(first_of(inputs)), enable_grad():
            record = Record(call, inputs, ctx.needs_input_grad[1:])
            outputs = tuple(as_tensor(output.data) for output in record.outputs)
        token = torch.empty(0)
        token.gpulstm_record = record  # type: ignore[attr-defined]
        ctx.save_for_backward(token, *inputs, *outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor | None) -> tuple:
        token, *saved = ctx.saved_tensors  # raises if one was changed in place since
        wanted = ctx.needs_input_grad[1:]
        inputs = saved[: len(wanted)]
        follow_torch()
        with current_stream(first_of(inputs)), enable_grad(), torch.no_grad():
            record = getattr(token, "gpulstm_record", None) or Record(ctx.call, inputs, wanted)
            token.gpulstm_record = None
            arrays = record.gradients([None if d is None else as_array(d) for d in given])
            gradients = [None if array is None else as_tensor(array) for array in arrays]
        if torch.is_grad_enabled():  # create_graph=True
            gradients = [None if gradient is None else _Once.apply(gradient, *inputs, *given) for gradient in gradients]
        return None, *gradients


class _Once(torch.autograd.Function):
    """Returns a gradient unchanged and refuses to differentiate it, which would otherwise silently give zeros."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, *made_of: torch.Tensor | None) -> torch.Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple:
        raise TapeError("gpulstm.torch has no second derivatives; use the layer of torch.nn for them")


def run(call: Call, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """The outputs of the call, recorded if torch's grad mode is on and an input requires a gradient."""
    follow_torch()
    if torch.is_grad_enabled() and any([x is not None and x.requires_grad for x in inputs]):
        return _Function.apply(call, *inputs)
    with current_stream(first_of(inputs)), no_grad():
        leaves = [None if tensor is None else Tensor(as_array(tensor)) for tensor in inputs]
        return tuple([as_tensor(output.data) for output in call.outputs(leaves)])


def follow_torch() -> None:
    """Make compiled code use as many threads as torch does."""
    number = min(torch.get_num_threads(), threads.MOST)
    if number != threads.get_num_threads():
        threads.set_num_threads(number)


def first_of(inputs: Inputs) -> torch.Tensor:
    """The first input that is not None."""
    return inputs[0] if inputs[0] is not None else next(x for x in inputs if x is not None)
