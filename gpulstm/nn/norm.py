"""The layer normalisation layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm import functional
from gpulstm.backend import Device
from gpulstm.errors import ShapeError
from gpulstm.nn.arguments import as_tensor, check_fits
from gpulstm.nn.initial import Initial
from gpulstm.nn.module import Module, check_flags, check_sizes
from gpulstm.tape import Tensor, apply


class LayerNorm(Module):
    """Computes y = (x - mean) / sqrt(var + eps) * weight + bias over the last axes, as ``torch.nn.LayerNorm``.

    ``normalized_shape`` is n or (n1, n2, ...), the sizes of the normalised axes; x is (..., n1, n2, ...). weight and
    bias have that shape and start as ones and zeros. ``elementwise_affine=False`` leaves out both, ``bias=False`` only
    the bias. float16 and bfloat16 are computed in float32 (Ba, Kiros & Hinton 2016).

    Raises ShapeError or DTypeError, naming the argument that does not fit.

    >>> gl.LayerNorm(2)(np.array([[1.0, 3.0]], np.float32))
    Tensor([[-0.999995,  0.999995]], dtype=float32, device=cpu, requires_grad=True)
    """

    keeps_shape = True

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: "str | Device | None" = None,
        dtype: Any = None,
    ) -> None:
        given = normalized_shape if isinstance(normalized_shape, list | tuple) else [normalized_shape]
        if not given:
            raise ShapeError(f"normalized_shape: expected one size or several, got {normalized_shape!r}")
        for size in given:
            check_sizes(normalized_shape=size)
        check_flags(elementwise_affine=elementwise_affine, bias=bias)
        if isinstance(eps, bool) or not isinstance(eps, int | float | np.number) or not 0 <= eps < np.inf:
            raise ShapeError(f"eps: expected a number from 0 up, got {eps!r}")
        self.normalized_shape, self.eps = tuple(map(int, given)), float(eps)
        initial = Initial(device, dtype, None)
        self.weight = initial.parameter(np.ones(self.normalized_shape)) if elementwise_affine else None
        self.bias = initial.parameter(np.zeros(self.normalized_shape)) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Tensor:
        """x (..., *normalized_shape) -> the same shape."""
        x, axes = as_tensor(x, "x", self.weight), len(self.normalized_shape)
        if x.shape[-axes:] != self.normalized_shape:
            want = ", ".join(map(str, self.normalized_shape))
            raise ShapeError(f"x: expected (..., {want}), got {x.shape}")
        if self.weight is not None:
            check_fits("x", x, weight=self.weight)
        return apply(functional.layer_norm, x, self.weight, self.bias, axes=axes, eps=self.eps)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        bias = ", bias=False" if self.weight is not None and self.bias is None else ""
        return f"{self.normalized_shape}, eps={self.eps}{affine}{bias}"
