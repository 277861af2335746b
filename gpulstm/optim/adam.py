"""Adam and AdamW; one kernel launch updates all parameters of a dtype (kernels/adam.cu, kernels/host/adam.cpp)."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from gpulstm import checks, engine
from gpulstm.backend import Array, Backend
from gpulstm.errors import ShapeError
from gpulstm.optim.arguments import check_option
from gpulstm.optim.optimizer import Optimizer, Slot, contiguous, with_decay
from gpulstm.optim.table import CHUNK, address, first_chunks, to_device


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), as ``torch.optim.Adam``:

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps)

    where p is a parameter and g its gradient. ``amsgrad`` uses the largest v so far instead of v (Reddi, Kale & Kumar
    2018). The bias corrections 1 - beta^step are computed in float64 on the host for every parameter type.
    gl.optim.Optimizer describes parameter groups.

    Raises ShapeError for numbers below 0 and for betas of 1 or more.

    >>> p = gl.Parameter(np.array([1.0]))
    >>> p.grad = np.array([0.5])
    >>> gl.Adam([p], lr=0.1).step()
    >>> p.data.round(6)
    array([0.9])
    """

    _decoupled = False
    _arrays = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _fixed: ClassVar = {"maximize": False, "decoupled_weight_decay": False}

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)

    def _check_options(self, options: dict[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            check_option(name, options[name])
        betas = options["betas"]
        if not (isinstance(betas, tuple | list) and len(betas) == 2):
            raise ShapeError(f"betas: expected two numbers, got {betas!r}")
        for k, beta in enumerate(betas):
            check_option(f"betas[{k}]", beta, below=1)
        checks.flag("amsgrad", options["amsgrad"])

    def _array_names(self, options: dict[str, Any]) -> tuple[str, ...]:
        return self._arrays[: 3 if options["amsgrad"] else 2]

    def _numbers(self, options: dict[str, Any], step: int) -> tuple[float, float, float, float, float, float]:
        """keep, l2, beta1, beta2, step_size, eps of one step, as kernels/adam.cuh defines them."""
        lr, weight_decay = float(options["lr"]), float(options["weight_decay"])
        beta1, beta2 = (float(beta) for beta in options["betas"])
        correction = math.sqrt(1 - beta2**step)
        keep, l2 = (1 - lr * weight_decay, 0.0) if self._decoupled else (1.0, weight_decay)
        return keep, l2, beta1, beta2, lr * correction / (1 - beta1**step), float(options["eps"]) * correction

    def _update(
        self, xp: Any, options: dict[str, Any], p: Array, g: Array, state: dict[str, Any], s: Array, t: Array
    ) -> None:
        keep, l2, beta1, beta2, step_size, eps = self._numbers(options, state["step"])
        m, v = state["exp_avg"], state["exp_avg_sq"]
        if keep != 1:
            xp.multiply(p, keep, out=p)
        g = with_decay(xp, g, p, l2, out=s)
        xp.multiply(m, beta1, out=m)
        xp.add(m, xp.multiply(g, 1 - beta1, out=t), out=m)
        xp.multiply(v, beta2, out=v)
        xp.multiply(xp.multiply(g, g, out=t), 1 - beta2, out=t)
        xp.add(v, t, out=v)
        if options["amsgrad"]:
            v = xp.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        xp.add(xp.sqrt(v, out=t), eps, out=t)
        xp.multiply(xp.divide(m, t, out=t), step_size, out=t)
        xp.subtract(p, t, out=p)

    def _update_alike(self, backend: Backend, dtype: np.dtype, slots: list[Slot]) -> None:
        compiled = None if backend.is_cuda else engine.function("adam", dtype)
        if not (backend.is_cuda or compiled):
            return super()._update_alike(backend, dtype, slots)
        # The table holds addresses, so copies of non-contiguous arrays must stay alive until the launch.
        params = [contiguous(backend.xp, slot.parameter.data) for slot in slots]
        grads = [contiguous(backend.xp, slot.parameter.grad) for slot in slots]
        sizes = [p.size for p in params]
        arrays, numbers = [], []
        for p, g, (group, _, state) in zip(params, grads, slots, strict=True):
            of_state = [state[name] for name in self._array_names(group)]
            addresses = [address(backend, x) for x in (p, g, *of_state)]
            arrays.append((*addresses, *[0] * (5 - len(addresses)), p.size))
            numbers.append(self._numbers(group, state["step"]))
        starts = first_chunks(sizes)
        tables = to_device(backend, starts, np.array(arrays, np.int64), np.array(numbers))
        if compiled:
            compiled(*tables, len(slots), CHUNK)
        else:
            assert backend.kernels is not None
            backend.kernels(
                "adam", "adam", sum(sizes), *tables, len(slots), CHUNK, real=dtype, blocks=int(starts[-1])
            )  # fmt: skip
        for p, slot in zip(params, slots, strict=True):
            if p is not slot.parameter.data:
                slot.parameter.data[...] = p


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as ``torch.optim.AdamW``:

        p = (1 - lr * weight_decay) * p

    comes before Adam's update, and the gradient in that update has no weight decay. Options and errors are Adam's.

    >>> p = gl.Parameter(np.array([1.0]))
    >>> p.grad = np.array([0.5])
    >>> gl.AdamW([p], lr=0.1).step()
    >>> p.data.round(6)
    array([0.899])
    """

    _decoupled = True
    _fixed: ClassVar = {"maximize": False, "decoupled_weight_decay": True}

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, amsgrad)
