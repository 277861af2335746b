"""Contexts around a module: evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from gpulstm.nn.module import Module


@contextmanager
def evaluation(module: Module) -> Iterator[None]:
    """Evaluation mode inside the block; at its end, also after an error, every layer has its own mode back."""
    before = [(layer, layer.training) for layer in module.modules()]
    if any(training for _, training in before):  # eval() looks through all layers, which a loop of steps would feel
        module.eval()
    try:
        yield
    finally:
        for layer, training in before:
            if layer.training != training:
                layer.training = training
