"""Learning-rate schedules: they set ``lr`` in an optimiser's groups, with PyTorch's names and numbers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, SupportsFloat

from gpulstm import checks
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.optim import Optimizer

BELOW_1 = math.nextafter(1, 0)


class Schedule(ABC):
    """The base class of schedules that set ``lr = rate(base_lr, k)`` in every group; a subclass defines ``rate``.

    ``base_lr`` is the learning rate of the group when you make the schedule. k is the number of calls of ``step()``:
    call it once after each step of the optimiser. Raises DTypeError for anything but an optimiser.

    >>> isinstance(gl.StepLR(gl.SGD([gl.Parameter(np.zeros(1))]), 30), gl.schedules.Schedule)
    True
    """

    needs_metric = False  # step() takes no metric; call it after each step of the optimiser
    _shown: ClassVar[tuple[str, ...]] = ()  # the options in ``repr``

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = _checked(optimizer)
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.k = 0
        self._apply()

    @abstractmethod
    def rate(self, base_lr: float, k: int) -> float:
        """Return the learning rate at step k."""

    def step(self) -> None:
        """Set the learning rate of the next step."""
        self.k += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the initial learning rates."""
        return {"k": self.k, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of ``state_dict``; raises FormatError for a state of another schedule or of other groups."""
        k, base_lrs = _values(state_dict, self.state_dict(), k=checks.count, base_lrs=_rates)
        if len(base_lrs) != len(self.base_lrs):
            raise FormatError(
                f"schedule state: expected {len(self.base_lrs)} base_lrs, one per group, got {len(base_lrs)}"
            )
        self.k, self.base_lrs = k, base_lrs
        self._apply()

    def __repr__(self) -> str:
        options = {name.removeprefix("_"): getattr(self, name) for name in self._shown}
        return _line(self, {**options, "k": self.k})

    def _apply(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise ShapeError(f"groups: expected {len(self.base_lrs)}, as at the schedule's start, got {len(groups)}")
        for group, base_lr in zip(groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base_lr, self.k)


class ConstantLR(Schedule):
    """Multiplies lr by ``factor`` for ``total_iters`` steps, as PyTorch; raises ShapeError unless 0 <= factor <= 1.

    >>> gl.ConstantLR(gl.SGD([gl.Parameter(np.zeros(1))], lr=0.1), factor=0.5)
    ConstantLR(factor=0.5, total_iters=5, k=0, lr=0.05)
    """

    _shown = ("_factor", "_total_iters")

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self._factor = checks.number("factor", factor, most=1)
        self._total_iters = checks.count("total_iters", total_iters)
        super().__init__(optimizer)

    def rate(self, base_lr: float, k: int) -> float:
        return base_lr * self._factor if k < self._total_iters else base_lr


class StepLR(Schedule):
    """Multiplies lr by ``gamma`` every ``step_size`` steps, as PyTorch; raises ShapeError for step_size < 1, gamma < 0.

    >>> gl.StepLR(gl.SGD([gl.Parameter(np.zeros(1))], lr=0.1), step_size=30)
    StepLR(step_size=30, gamma=0.1, k=0, lr=0.1)
    """

    _shown = ("_step_size", "_gamma")

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self._step_size = checks.count("step_size", step_size, 1)
        self._gamma = checks.number("gamma", gamma)
        super().__init__(optimizer)

    def rate(self, base_lr: float, k: int) -> float:
        return base_lr * self._gamma ** (k // self._step_size)


class CosineWarmup(Schedule):
    """Increases lr linearly for W = ``warmup_steps``, then decreases it along half a cosine to ``min_lr``:

        k < W:        lr = base_lr * (k + 1) / (W + 1)
        W <= k < N:   lr = min_lr + (base_lr - min_lr) * (1 + cos(pi * (k - W) / (N - W))) / 2
        k >= N:       lr = min_lr

    with N = ``total_steps`` (Loshchilov & Hutter 2017; warmup: Goyal et al. 2017). The rate at step 0 is above 0, and
    that at step W is base_lr. Raises ShapeError unless 0 <= warmup_steps < total_steps and 0 <= min_lr <= lr of every
    group.

    >>> gl.CosineWarmup(gl.SGD([gl.Parameter(np.zeros(1))], lr=0.1), warmup_steps=1, total_steps=10)
    CosineWarmup(warmup_steps=1, total_steps=10, min_lr=0.0, k=0, lr=0.05)
    """

    _shown = ("_warmup_steps", "_total_steps", "_min_lr")

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr: float = 0.0) -> None:
        self._warmup_steps = checks.count("warmup_steps", warmup_steps)
        self._total_steps = checks.count("total_steps", total_steps, self._warmup_steps + 1)
        self._min_lr = checks.number("min_lr", min_lr)
        lowest = min(group["lr"] for group in _checked(optimizer).param_groups)
        if self._min_lr > lowest:
            raise ShapeError(f"min_lr: expected at most {lowest:g}, the optimiser's lr, got {self._min_lr:g}")
        super().__init__(optimizer)

    def rate(self, base_lr: float, k: int) -> float:
        W, N = self._warmup_steps, self._total_steps
        if k < W:
            return base_lr * (k + 1) / (W + 1)
        if k >= N:
            return self._min_lr
        return self._min_lr + (base_lr - self._min_lr) * (1 + math.cos(math.pi * (k - W) / (N - W))) / 2


class ReduceLROnPlateau:
    """Multiplies lr by ``factor`` after more than ``patience`` bad metrics in a row, as in PyTorch.

    Call ``step(metric)`` after each validation. A metric is bad if it is not better than the best one so far. With mode
    "min", better means below ``best * (1 - threshold)``; with "max", above ``best * (1 + threshold)``. With
    threshold_mode "abs", it means below ``best - threshold`` or above ``best + threshold``. NaN is never better. After
    a reduction, the next ``cooldown`` metrics do not count as bad. The rate never falls below ``min_lr``, and a change
    of ``eps`` or less is skipped. Raises ShapeError for options out of range.

    >>> gl.ReduceLROnPlateau(gl.SGD([gl.Parameter(np.zeros(1))]), patience=2).step(metric=0.5)
    """

    needs_metric = True  # call step() after each validation, with a metric such as the validation loss

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.optimizer = _checked(optimizer)
        self._mode = checks.choice("mode", mode, ("min", "max"))
        self._threshold_mode = checks.choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self._factor = checks.number("factor", factor, most=BELOW_1, words="a number from 0 to below 1")
        self._threshold, self._min_lr = checks.number("threshold", threshold), checks.number("min_lr", min_lr)
        self._eps, self._patience = checks.number("eps", eps), checks.count("patience", patience)
        self._cooldown = checks.count("cooldown", cooldown)
        self.best: float | None = None
        self.bad, self.cooldown_left = 0, 0

    def step(self, metric: SupportsFloat) -> None:
        """Process the next metric: a number, or an array or Tensor with one element; raises DTypeError for others."""
        try:
            value = float(metric.item() if hasattr(metric, "item") else metric)
        except (TypeError, ValueError) as error:
            raise DTypeError(f"metric: expected a number, got {metric!r}") from error
        if self._is_better(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.cooldown_left > 0:
            self.cooldown_left, self.bad = self.cooldown_left - 1, 0
        if self.bad > self._patience:
            self._reduce()
            self.cooldown_left, self.bad = self._cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric and the counters; the learning rates are in the optimiser's state."""
        return {"best": self.best, "bad": self.bad, "cooldown_left": self.cooldown_left}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of ``state_dict``; raises FormatError for the state of another schedule."""
        kinds = {"best": _best, "bad": checks.count, "cooldown_left": checks.count}
        self.best, self.bad, self.cooldown_left = _values(state_dict, self.state_dict(), **kinds)

    def __repr__(self) -> str:
        names = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps")
        options = {name: getattr(self, f"_{name}") for name in names}
        return _line(self, {**options, "best": self.best, "bad": self.bad})

    def _is_better(self, metric: float) -> bool:
        sign = 1 if self._mode == "max" else -1
        best = -sign * math.inf if self.best is None else self.best
        relative, absolute = best * (1 + sign * self._threshold), best + sign * self._threshold
        bar = relative if self._threshold_mode == "rel" else absolute
        return metric > bar if sign > 0 else metric < bar

    def _reduce(self) -> None:
        for group in self.optimizer.param_groups:
            lr = max(group["lr"] * self._factor, self._min_lr)
            if group["lr"] - lr > self._eps:
                group["lr"] = lr


def _checked(optimizer: Any) -> Optimizer:
    """Return the optimiser; raises DTypeError for anything else."""
    if not isinstance(optimizer, Optimizer):
        raise DTypeError(f"optimizer: expected an optimiser, e.g. gl.Adam(model.parameters()), got {optimizer!r:.60}")
    return optimizer


def _line(schedule: Any, options: dict[str, Any]) -> str:
    text = ", ".join(f"{name}={value!r}" for name, value in options.items())
    lrs = [group["lr"] for group in schedule.optimizer.param_groups]
    return f"{type(schedule).__name__}({text}, lr={lrs[0] if len(lrs) == 1 else lrs})"


def _values(state_dict: Any, mine: dict[str, Any], **kinds: Callable[[str, Any], Any]) -> list[Any]:
    """Check a state and return its values; it must have the names of ``mine``, and ``kinds`` check each value."""
    got = sorted(state_dict, key=str) if isinstance(state_dict, dict) else type(state_dict).__name__
    if got != sorted(mine):
        raise FormatError(f"schedule state: expected {sorted(mine)}, got {got}")
    try:
        return [kind(f"schedule state: {name}", state_dict[name]) for name, kind in kinds.items()]
    except (TypeError, ValueError) as error:
        raise FormatError(str(error)) from error


def _best(name: str, value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise FormatError(f"{name}: expected a number or None, got {value!r:.60}")
    return None if value is None else float(value)


def _rates(name: str, values: Any) -> list[float]:
    if not isinstance(values, list | tuple):
        raise FormatError(f"{name}: expected a list of numbers, got {values!r:.60}")
    return [checks.number(name, value) for value in values]
