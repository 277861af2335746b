"""The linear layer."""

import math
from typing import Any

import numpy as np

from gpulstm import functional
from gpulstm.backend import Device
from gpulstm.nn.arguments import as_tensor, check_fits
from gpulstm.nn.initial import Initial
from gpulstm.nn.module import Module, check_flags, check_sizes
from gpulstm.tape import Tensor, apply


class Linear(Module):
    """Computes y = x W' + b over the last axis, as ``torch.nn.Linear``: x (..., in_features) -> (..., out_features).

    weight (out_features, in_features) and bias (out_features,) start as U(-1/sqrt(n), 1/sqrt(n)) with n = in_features.
    Raises ShapeError, DTypeError or DeviceError for an x that does not fit.

    >>> gl.Linear(4, 2)(np.zeros((5, 3, 4), np.float32)).shape
    (5, 3, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: "str | Device | None" = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
    ) -> None:
        check_flags(bias=bias)
        in_features, out_features = check_sizes(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        initial, bound = Initial(device, dtype, generator), 1 / math.sqrt(in_features)
        self.weight = initial.uniform(bound, out_features, in_features)
        self.bias = initial.uniform(bound, out_features) if bias else None

    @property
    def output_size(self) -> int:
        """The size of the output's last axis."""
        return self.out_features

    def forward(self, x: Any) -> Tensor:
        """x (..., in_features) -> (..., out_features).

        Raises ShapeError, DTypeError or DeviceError for an x that does not fit the weight.
        """
        x = as_tensor(x, "x", self.weight)
        check_fits("x", x, weight=self.weight)
        return apply(functional.linear, x, self.weight, self.bias, input_gradient=x.requires_grad)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
