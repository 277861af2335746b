"""Contexts around a module: evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from gpulstm.nn.module import Module


@contextmanager
def evaluation(module: Module) -> Iterator[None]:
    """Evaluation mode inside the block; at its end, also after an error, every layer has its own mode back."""
    before = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, training in before:
            layer.training = training
