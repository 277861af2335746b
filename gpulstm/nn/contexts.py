"""A context manager that puts a module in evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager

from gpulstm.nn.module import Module


@contextmanager
def evaluation(module: Module) -> Iterator[None]:
    """Use evaluation mode inside the block; at its end, also after an error, every layer gets its own mode back."""
    before = [(layer, layer.training) for layer in module.modules()]
    if any(training for _, training in before):  # eval() walks over all layers, which is slow at every step
        module.eval()
    try:
        yield
    finally:
        for layer, training in before:
            if layer.training != training:
                layer.training = training
