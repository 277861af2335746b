"""RMSprop: the gradient divided by a running average of its size."""

from collections.abc import Iterable
from typing import Any

from gpulstm import checks
from gpulstm.backend import Array
from gpulstm.optim.arguments import check_option
from gpulstm.optim.optimizer import Optimizer, with_decay


class RMSprop(Optimizer):
    """RMSprop (Hinton's lecture 6e, 2012; centered: Graves 2013), as ``torch.optim.RMSprop``:

        g          = g + weight_decay * p
        square_avg = alpha * square_avg + (1 - alpha) * g^2
        grad_avg   = alpha * grad_avg + (1 - alpha) * g                   centered only
        size       = sqrt(square_avg - grad_avg^2) + eps                  without grad_avg^2 unless centered
        b          = momentum * b + g / size
        p          = p - lr * b                                           lr * g / size without momentum

    If rounding makes square_avg - grad_avg^2 negative, it is set to 0. Raises ShapeError for numbers below 0 and if
    alpha is 1 or more.

    >>> p = gl.Parameter(np.array([1.0]))
    >>> p.grad = np.array([0.5])
    >>> gl.RMSprop([p], lr=0.01).step()
    >>> p.data.round(6)
    array([0.9])
    """

    _arrays = ("square_avg", "grad_avg", "momentum_buffer")

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
        )

    def _check_options(self, options: dict[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay", "momentum"):
            check_option(name, options[name])
        check_option("alpha", options["alpha"], below=1)
        checks.flag("centered", options["centered"])

    def _array_names(self, options: dict[str, Any]) -> tuple[str, ...]:
        optional = {"grad_avg": options["centered"], "momentum_buffer": options["momentum"]}
        return ("square_avg", *(name for name, used in optional.items() if used))

    def _update(
        self, xp: Any, options: dict[str, Any], p: Array, g: Array, state: dict[str, Any], s: Array, t: Array
    ) -> None:
        alpha, square_avg = float(options["alpha"]), state["square_avg"]
        g = with_decay(xp, g, p, float(options["weight_decay"]), out=s)
        xp.multiply(square_avg, alpha, out=square_avg)
        xp.multiply(xp.multiply(g, g, out=t), 1 - alpha, out=t)
        xp.add(square_avg, t, out=square_avg)
        if options["centered"]:
            grad_avg = state["grad_avg"]
            xp.multiply(grad_avg, alpha, out=grad_avg)
            xp.add(grad_avg, xp.multiply(g, 1 - alpha, out=t), out=grad_avg)
            xp.subtract(square_avg, xp.multiply(grad_avg, grad_avg, out=t), out=t)
            xp.sqrt(xp.maximum(t, 0, out=t), out=t)
        else:
            xp.sqrt(square_avg, out=t)
        xp.divide(g, xp.add(t, float(options["eps"]), out=t), out=t)
        if options["momentum"]:
            b = state["momentum_buffer"]
            xp.multiply(b, float(options["momentum"]), out=b)
            xp.add(b, t, out=b)
            xp.multiply(b, float(options["lr"]), out=t)
        else:
            xp.multiply(t, float(options["lr"]), out=t)
        xp.subtract(p, t, out=p)
