"""The dropout layer."""

from typing import Any

import numpy as np

from gpulstm import checks, functional, shares
from gpulstm.functional.checks import check_floats
from gpulstm.nn.arguments import as_tensor
from gpulstm.nn.module import Module, check_rate
from gpulstm.random import as_generator, draw_seed
from gpulstm.tape import apply


class Dropout(Module):
    """Sets each element to zero with probability p in training and scales the others by 1 / (1 - p): x (...) -> (...).

    As ``torch.nn.Dropout`` (Srivastava et al. 2014). Every call draws a new seed from ``generator``, by default the one
    that ``gl.manual_seed`` seeds. Raises ShapeError unless 0 <= p <= 1.

    ``batch_axis`` matters only with several processes (gpulstm.parallel), which together drop the same elements as one
    process with the whole batch. By default the layer finds the batch axis by its size; if several axes have that size,
    it raises ShapeError. Use None for arrays without a batch axis, such as weights.

    >>> gl.Dropout(0.5).eval()(np.array([1.0, 2.0]))
    Tensor([1., 2.], dtype=float64, device=cpu)
    """

    keeps_shape = True

    def __init__(
        self, p: float = 0.5, generator: np.random.Generator | None = None, *, batch_axis: int | str | None = "auto"
    ) -> None:
        check_rate("p", p)
        if batch_axis not in (None, "auto"):
            checks.integer("batch_axis", batch_axis, -(2**31), 2**31, words="an integer, None or 'auto'")
        if generator is not None:
            as_generator(generator)
        self.p, self.generator, self.batch_axis = p, generator, batch_axis
        self._found: dict[str, int] = {}  # number of dimensions -> batch axis

    def forward(self, x: Any) -> Any:
        """Drop elements of x (...); return x in evaluation mode or if p = 0. Raises DTypeError unless x is floating."""
        x = as_tensor(x, "x")
        check_floats(x=x.data)
        if not self.training or self.p == 0:
            return x
        draws = self._draws(x.shape)
        return apply(functional.dropout, x, rate=self.p, seed=draw_seed(self.generator), draws=draws)

    def _draws(self, shape: tuple[int, ...]) -> shares.Draws | None:
        share, axis = shares.current(), self.batch_axis
        if share is None or axis is None:
            return None
        if axis == "auto":
            known = self._found.get(str(len(shape)))
            self._found[str(len(shape))] = axis = share.axis_of(shape, known)
        return share.draws_of(shape, int(axis))

    def extra_repr(self) -> str:
        return f"p={self.p}"
