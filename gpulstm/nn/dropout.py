"""The layer that drops elements in training."""

from typing import Any

import numpy as np

from gpulstm import functional, shares
from gpulstm.functional.checks import check_floats
from gpulstm.nn.arguments import as_tensor
from gpulstm.nn.module import Module, check_rate
from gpulstm.random import as_generator, draw_seed
from gpulstm.tape import apply


class Dropout(Module):
    """Sets each element to zero with probability p in training and scales the others by 1 / (1 - p): x (...) -> (...).

    As ``torch.nn.Dropout`` (Srivastava et al. 2014). Every call draws a new seed from ``generator``, by default the one
    that ``gl.manual_seed`` seeds. Raises ShapeError unless 0 <= p <= 1.

    >>> gl.Dropout(0.5).eval()(np.array([1.0, 2.0]))
    Tensor([1., 2.], dtype=float64, device=cpu)
    """

    keeps_shape = True

    def __init__(self, p: float = 0.5, generator: np.random.Generator | None = None) -> None:
        check_rate("p", p)
        if generator is not None:
            as_generator(generator)
        self.p, self.generator = p, generator

    def forward(self, x: Any) -> Any:
        """x of any shape -> the same shape; x itself when not training or p is 0. Raises DTypeError for no floats."""
        x = as_tensor(x, "x")
        check_floats(x=x.data)
        if not self.training or self.p == 0:
            return x
        share = shares.current()
        draws = None if share is None else share.draws_of(x.shape)
        return apply(functional.dropout, x, rate=self.p, seed=draw_seed(self.generator), draws=draws)

    def extra_repr(self) -> str:
        return f"p={self.p}"
