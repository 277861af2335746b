"""GradScaler: dynamic loss scaling, so that small gradients do not become zero in float16."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.errors import DTypeError, FormatError, NotFinite, ShapeError
from gpulstm.optim.arguments import parameters_of
from gpulstm.tape import Tensor

FIELDS = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")  # PyTorch's names
LEAST, MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # the scales that float32 can hold


class GradScaler:
    """Scales the loss before ``backward`` and unscales the gradients before the step, as ``torch.amp.GradScaler``.

    With ``gl.precision("fp16")`` the factors of every product are float16, which rounds gradients below 6e-8 to zero.
    Scaling the loss by 65536 scales all gradients by the same factor. If they overflow, the step is skipped and the
    scale halved. After ``growth_interval`` steps in a row without overflow, it is doubled (Micikevicius et al. 2018).

    init_scale
        The initial scale of the loss.
    growth_factor, growth_interval
        The factor by which the scale grows, and after how many steps in a row without overflow.
    backoff_factor
        The factor by which an overflow multiplies the scale.
    enabled
        False turns scaling off.

    ``skipped_steps`` is the number of skipped steps. On a GPU the host waits once per step, in ``step``. Raises
    ShapeError for factors out of range.

    >>> model, scaler = gl.Linear(3, 1), gl.GradScaler()
    >>> optimizer = gl.SGD(model.parameters())
    >>> with gl.precision("fp16"):
    ...     loss = gl.mse(model(np.ones((4, 3), np.float32)), np.ones((4, 1), np.float32))
    >>> scaler.scale(loss).backward()
    >>> scaler.unscale_(optimizer)  # only before code that reads the gradients, such as clipping
    >>> norm = gl.clip_grad_norm(model.parameters(), 1.0)
    >>> scaler.step(optimizer)
    True
    >>> scaler.update()
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._scale = _above_zero("init_scale", init_scale)
        self._growth_factor = _growing(growth_factor)
        self._backoff_factor = _falling(backoff_factor)
        self._growth_interval = checks.count("growth_interval", growth_interval, 1)
        self._enabled = checks.flag("enabled", enabled)
        self._tracker = 0  # steps without overflow since the scale last changed
        self._unscaled: dict[int, list[Array]] = {}  # id of an optimiser -> are its gradients finite, per device
        self._overflowed: list[bool] = []  # of the steps since the last update
        self.skipped_steps = 0

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss times the scale."""
        if not isinstance(loss, Tensor):
            raise DTypeError(f"loss: expected a Tensor, got {type(loss).__name__}")
        return loss * self._scale if self._enabled else loss

    def unscale_(self, optimizer: Any, others: Iterable[Tensor] = ()) -> None:
        """Divide the gradients of the optimiser's parameters, and of ``others``, by the scale, in place.

        ``step`` calls this if you have not. Raises ShapeError for a second call before ``update``, and DTypeError for
        float16 gradients, because small ones would become zero without the scale.
        """
        parameters = {id(p): p for p in (*_parameters(optimizer), *parameters_of("others", others))}
        if not self._enabled:
            return
        if id(optimizer) in self._unscaled:
            raise ShapeError("unscale_: expected one call between updates, got a second one for this optimiser")
        grads = [p.grad for p in parameters.values() if p.grad is not None]
        for grad in grads:
            if grad.dtype == np.float16:
                want = "expected float32 gradients, because float16 cannot hold small unscaled ones, got float16"
                raise DTypeError(f"unscale_: {want}; keep the parameters in float32")
        self._unscaled[id(optimizer)] = [_divided(backend, alike, self._scale) for backend, alike in _by_device(grads)]

    def step(self, optimizer: Any) -> bool:
        """Call ``optimizer.step()`` if all gradients are finite; return whether it was called."""
        if not self._enabled:
            optimizer.step()
            return True
        if id(optimizer) not in self._unscaled:
            self.unscale_(optimizer)
        finite = all(bool(one) for one in self._unscaled[id(optimizer)])  # here the host waits for a GPU
        self._overflowed.append(not finite)
        if finite:
            optimizer.step()
        else:
            self.skipped_steps += 1
        return finite

    def update(self, new_scale: float | None = None) -> None:
        """Adjust the scale after the steps of all optimisers.

        A skipped step lowers the scale; ``growth_interval`` steps in a row without overflow raise it. ``new_scale``
        sets the scale instead. Raises ShapeError if there was no step, and NotFinite if the scale is already so low
        that it cannot be the cause of the overflow.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale, self._tracker = _above_zero("new_scale", new_scale), 0
        elif not self._overflowed:
            raise ShapeError("update: expected a call of step() first, got none since the last update()")
        elif any(self._overflowed):
            self._scale, self._tracker = self._scale * self._backoff_factor, 0
            if self._scale < LEAST:
                raise NotFinite(
                    f"gradients: expected finite numbers, got infinity or NaN at every scale down to {self._scale:g}"
                )
        else:
            self._tracker += 1
            if self._tracker >= self._growth_interval:
                grown = self._scale * self._growth_factor
                self._scale, self._tracker = grown if grown <= MOST else self._scale, 0
        self._unscaled, self._overflowed = {}, []

    def get_scale(self) -> float:
        """Return the scale, or 1.0 if scaling is off."""
        return self._scale if self._enabled else 1.0

    def is_enabled(self) -> bool:
        """Return whether losses are scaled."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save, after an ``update`` and before the next step; it is empty if scaling is off."""
        if not self._enabled:
            return {}
        values = self._scale, self._growth_factor, self._backoff_factor, self._growth_interval, self._tracker
        return {**dict(zip(FIELDS, values, strict=True)), "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of ``state_dict``, also that of PyTorch's scaler; raises FormatError for anything else."""
        if not self._enabled:
            return
        if not isinstance(state_dict, dict) or not set(FIELDS) <= state_dict.keys() <= {*FIELDS, "skipped_steps"}:
            raise FormatError("scaler state: expected state_dict() of an enabled GradScaler, got something else")
        scale, growth, backoff, interval, tracker = (state_dict[name] for name in FIELDS)
        values = _above_zero("scale", scale), _growing(growth), _falling(backoff)
        counts = checks.count("growth_interval", interval, 1), checks.count("_growth_tracker", tracker)
        self.skipped_steps = checks.count("skipped_steps", state_dict.get("skipped_steps", 0))
        self._scale, self._growth_factor, self._backoff_factor = values
        self._growth_interval, self._tracker = counts
        self._unscaled, self._overflowed = {}, []

    def __repr__(self) -> str:
        return f"GradScaler(scale={self.get_scale():g}, skipped_steps={self.skipped_steps})"


def _parameters(optimizer: Any) -> list[Tensor]:
    if isinstance(optimizer, type) or not (hasattr(optimizer, "param_groups") and hasattr(optimizer, "step")):
        raise DTypeError(f"optimizer: expected e.g. gl.Adam(model.parameters()), got {optimizer!r:.80}")
    return [p for group in optimizer.param_groups for p in group["params"]]


def _by_device(grads: list[Array]) -> list[tuple[Backend, list[Array]]]:
    found: dict[str, tuple[Backend, list[Array]]] = {}
    for grad in grads:
        found.setdefault((backend := backend_of(grad)).name, (backend, []))[1].append(grad)
    return list(found.values())


def _divided(backend: Backend, grads: list[Array], scale: float) -> Array:
    """Divide the gradients of one device in place; return whether all are finite, as an array on the device."""
    with backend, np.errstate(all="ignore"):
        finite = backend.empty((len(grads),), np.bool_)
        for k, grad in enumerate(grads):
            grad *= 1 / scale
            wide = grad.astype(np.float32) if grad.dtype.itemsize == 2 else grad  # CuPy has no bfloat16 here
            backend.xp.isfinite(wide).all(out=finite[k : k + 1].reshape(()))
        return finite.all()


def _above_zero(name: str, value: float) -> float:
    if (number := checks.number(name, value)) == 0:
        raise ShapeError(f"{name}: expected a number above 0, got 0")
    return number


def _growing(value: float) -> float:
    if (number := checks.number("growth_factor", value, 1)) == 1:
        raise ShapeError("growth_factor: expected a number above 1, got 1")
    return number


def _falling(value: float) -> float:
    if (number := _above_zero("backoff_factor", value)) >= 1:
        raise ShapeError(f"backoff_factor: expected a number between 0 and 1, got {value!r}")
    return number
