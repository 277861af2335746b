"""Learning-rate schedules: they change ``lr`` in an optimiser's groups, with PyTorch's names and numbers."""

import math
from abc import ABC, abstractmethod
from typing import Any, SupportsFloat

from gpulstm.errors import FormatError, ShapeError
from gpulstm.optim import Optimizer


class Schedule(ABC):
    """Base of the schedules that are a formula of the step: ``lr = rate(base_lr, k)`` in every group.

    ``base_lr`` is the group's rate when the schedule is made. k is 0 then, and one more after each
    ``step()``, which is called after the optimiser's: the optimiser's first step is number 0.
    """

    needs_metric = False  # step() takes no metric: it belongs after each step of the optimiser

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.k = 0
        self._apply()

    @abstractmethod
    def rate(self, base_lr: float, k: int) -> float:
        """The learning rate at step k."""

    def step(self) -> None:
        """Go on to the next step's rate."""
        self.k += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        return {"k": self.k, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave; raises FormatError for another schedule's or other groups'."""
        _check_keys(state_dict, self.state_dict())
        base_lrs = [float(lr) for lr in state_dict["base_lrs"]]
        if len(base_lrs) != len(self.base_lrs):
            raise FormatError(f"schedule state: want {len(self.base_lrs)} base_lrs, one a group, got {len(base_lrs)}")
        self.k, self.base_lrs = int(state_dict["k"]), base_lrs
        self._apply()

    def _apply(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise ShapeError(f"groups: want {len(self.base_lrs)}, as when the schedule was made, got {len(groups)}")
        for group, base_lr in zip(groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base_lr, self.k)


class ConstantLR(Schedule):
    """PyTorch's ``ConstantLR``: ``factor`` for the first ``total_iters`` steps, 1 from then on.

    ``ConstantLR(optimizer, factor=1)`` never changes the rate. Raises ShapeError for a factor outside [0, 1].
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        if not 0 <= factor <= 1:
            raise ShapeError(f"factor: want a number from 0 to 1, got {factor}")
        _check_count("total_iters", total_iters, 0)
        self._factor, self._total_iters = float(factor), total_iters
        super().__init__(optimizer)

    def rate(self, base_lr: float, k: int) -> float:
        return base_lr * self._factor if k < self._total_iters else base_lr


class StepLR(Schedule):
    """PyTorch's ``StepLR``: base_lr * gamma ** (k // step_size).

    Raises ShapeError for a step_size below 1 and a gamma below 0.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        _check_count("step_size", step_size, 1)
        _check_number("gamma", gamma)
        self._step_size, self._gamma = step_size, float(gamma)
        super().__init__(optimizer)

    def rate(self, base_lr: float, k: int) -> float:
        return base_lr * self._gamma ** (k // self._step_size)


class CosineWarmup(Schedule):
    """A linear rise over W = ``warmup_steps``, then half a cosine down to ``min_lr``::

        k < W:        lr = base_lr * (k + 1) / (W + 1)
        W <= k < N:   lr = min_lr + (base_lr - min_lr) * (1 + cos(pi * (k - W) / (N - W))) / 2
        k >= N:       lr = min_lr

    with N = ``total_steps`` (Loshchilov & Hutter 2017; the rise is Goyal et al.'s 2017). The first step's
    rate is not 0, so no step is lost; step W has the whole base_lr.

    Raises ShapeError unless 0 <= warmup_steps < total_steps and 0 <= min_lr <= lr of every group.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr: float = 0.0) -> None:
        _check_count("warmup_steps", warmup_steps, 0)
        _check_count("total_steps", total_steps, warmup_steps + 1)
        _check_number("min_lr", min_lr)
        lowest = min(group["lr"] for group in optimizer.param_groups)
        if min_lr > lowest:
            raise ShapeError(f"min_lr: want at most {lowest:g}, the optimiser's lr, got {min_lr:g}")
        self._warmup_steps, self._total_steps, self._min_lr = warmup_steps, total_steps, float(min_lr)
        super().__init__(optimizer)

    def rate(self, base_lr: float, k: int) -> float:
        W, N = self._warmup_steps, self._total_steps
        if k < W:
            return base_lr * (k + 1) / (W + 1)
        if k >= N:
            return self._min_lr
        return self._min_lr + (base_lr - self._min_lr) * (1 + math.cos(math.pi * (k - W) / (N - W))) / 2


class ReduceLROnPlateau:
    """PyTorch's ``ReduceLROnPlateau``: lr * ``factor`` after more than ``patience`` bad metrics in a row.

    A metric is bad if it is not better than the best. Better is below ``best * (1 - threshold)`` with mode
    "min", above ``best * (1 + threshold)`` with "max"; with threshold_mode "abs", below ``best - threshold``
    and above ``best + threshold``. A metric that is not a number is never better. After a reduction the next
    ``cooldown`` metrics do not count as bad. A rate stays at or above ``min_lr``, and is left alone when it
    would change by ``eps`` or less. Raises ShapeError for options out of range.
    """

    needs_metric = True  # step() wants one, usually the validation loss: it belongs after each validation

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
        _check_choice("mode", mode, ("min", "max"))
        _check_choice("threshold_mode", threshold_mode, ("rel", "abs"))
        if not 0 <= factor < 1:
            raise ShapeError(f"factor: want a number from 0 to below 1, got {factor}")
        for name, number in (("threshold", threshold), ("min_lr", min_lr), ("eps", eps)):
            _check_number(name, number)
        _check_count("patience", patience, 0)
        _check_count("cooldown", cooldown, 0)
        self.optimizer, self._mode, self._factor, self._patience = optimizer, mode, factor, patience
        self._threshold, self._threshold_mode, self._cooldown = threshold, threshold_mode, cooldown
        self._min_lr, self._eps = min_lr, eps
        self.best: float | None = None
        self.bad, self.cooldown_left = 0, 0

    def step(self, metric: SupportsFloat) -> None:
        """Take the next metric, a number or an array of one, into account."""
        value = float(metric)
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
        """The best metric and the counts; the rates themselves are in the optimiser's state."""
        return {"best": self.best, "bad": self.bad, "cooldown_left": self.cooldown_left}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave. Raises FormatError for the state of another schedule."""
        _check_keys(state_dict, self.state_dict())
        self.best = None if state_dict["best"] is None else float(state_dict["best"])
        self.bad, self.cooldown_left = int(state_dict["bad"]), int(state_dict["cooldown_left"])

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


def _check_count(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ShapeError(f"{name}: want a whole number from {least} up, got {value!r}")


def _check_number(name: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise ShapeError(f"{name}: want a number from 0 up, got {value!r}")


def _check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise ShapeError(f"{name}: want {' or '.join(map(repr, choices))}, got {choice!r}")


def _check_keys(state_dict: dict[str, Any], want: dict[str, Any]) -> None:
    got = sorted(state_dict) if isinstance(state_dict, dict) else type(state_dict).__name__
    if got != sorted(want):
        raise FormatError(f"schedule state: want {sorted(want)}, got {got}")
