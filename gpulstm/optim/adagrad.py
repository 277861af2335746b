"""Adagrad: every element has its own step size, which shrinks as its squared gradients add up."""

from collections.abc import Iterable
from typing import Any

from gpulstm.backend import Array
from gpulstm.optim.arguments import check_option
from gpulstm.optim.optimizer import Optimizer, with_decay


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011), as ``torch.optim.Adagrad``:

        g   = g + weight_decay * p
        sum = sum + g^2
        p   = p - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(sum) + eps)

    ``sum`` starts at ``initial_accumulator_value``. Raises ShapeError for numbers below 0.

    >>> p = gl.Parameter(np.array([1.0]))
    >>> p.grad = np.array([0.5])
    >>> gl.Adagrad([p], lr=0.1).step()
    >>> p.data
    array([0.9])
    """

    _arrays = ("sum",)

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(
            parameters, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps,
        )  # fmt: skip

    def _check_options(self, options: dict[str, Any]) -> None:
        for name in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            check_option(name, options[name])

    def _array_names(self, options: dict[str, Any]) -> tuple[str, ...]:
        return ("sum",)

    def _start(self, name: str, options: dict[str, Any]) -> float:
        return float(options["initial_accumulator_value"])

    def _update(
        self, xp: Any, options: dict[str, Any], p: Array, g: Array, state: dict[str, Any], s: Array, t: Array
    ) -> None:
        total, earlier = state["sum"], state["step"] - 1
        step_size = float(options["lr"]) / (1 + earlier * float(options["lr_decay"]))
        g = with_decay(xp, g, p, float(options["weight_decay"]), out=s)
        xp.add(total, xp.multiply(g, g, out=t), out=total)
        xp.add(xp.sqrt(total, out=t), float(options["eps"]), out=t)
        xp.multiply(xp.divide(g, t, out=t), step_size, out=t)
        xp.subtract(p, t, out=p)
