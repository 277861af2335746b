"""Stochastic gradient descent with momentum, dampening and Nesterov's look-ahead."""

from collections.abc import Iterable
from typing import Any

from gpulstm import checks
from gpulstm.backend import Array
from gpulstm.errors import ShapeError
from gpulstm.optim.arguments import check_option
from gpulstm.optim.optimizer import Optimizer, with_decay


class SGD(Optimizer):
    """Stochastic gradient descent, as ``torch.optim.SGD``:

        g = g + weight_decay * p
        b = momentum * b + (1 - dampening) * g      b = g at the first step
        p = p - lr * b

    With ``nesterov`` (Sutskever et al. 2013) the update uses g + momentum * b instead of b; without momentum it uses g.

    Raises ShapeError for numbers below 0, and for nesterov without momentum or with dampening.

    >>> p = gl.Parameter(np.array([1.0]))
    >>> p.grad = np.array([0.5])
    >>> gl.SGD([p], lr=0.1).step()
    >>> p.data
    array([0.95])
    """

    _arrays = ("momentum_buffer",)
    _counts = False

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def _check_options(self, options: dict[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay", "dampening"):
            check_option(name, options[name])
        checks.flag("nesterov", options["nesterov"])
        if options["nesterov"] and not (options["momentum"] > 0 and options["dampening"] == 0):
            raise ShapeError(
                "nesterov: expected a momentum above 0 and no dampening, "
                f"got momentum {options['momentum']} and dampening {options['dampening']}"
            )

    def _array_names(self, options: dict[str, Any]) -> tuple[str, ...]:
        return self._arrays if options["momentum"] else ()

    def _update(
        self, xp: Any, options: dict[str, Any], p: Array, g: Array, state: dict[str, Any], s: Array, t: Array
    ) -> None:
        lr, momentum = float(options["lr"]), float(options["momentum"])
        g = with_decay(xp, g, p, float(options["weight_decay"]), out=s)
        if momentum:
            b = state["momentum_buffer"]
            xp.multiply(b, momentum, out=b)
            xp.multiply(g, 1.0 if state["step"] == 1 else 1 - float(options["dampening"]), out=t)
            xp.add(b, t, out=b)
            g = xp.add(g, xp.multiply(b, momentum, out=t), out=s) if options["nesterov"] else b
        xp.subtract(p, xp.multiply(g, lr, out=t), out=p)
