"""What is fixed for one sequence: sizes, which rows are alive at which step, what is cleared and what is kept."""

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from gpulstm import checks
from gpulstm.backend import Backend, backend_of
from gpulstm.cells import Cell
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional.dropout import mask as bernoulli
from gpulstm.shares import Draws, Share


@dataclass(frozen=True)
class Noise:
    """Describes the Bernoulli noise of zoneout or dropout for one sequence: ``rate``, and ``seed`` of the draws.

    ``seed=None`` means evaluation, which uses the mean. Step t takes the draws numbered from t * B * H of the seed's
    sequence, so a sequence computed in parts, from step ``first`` on, has the same noise, and so does a ``share`` of
    the batch. Raises ShapeError for a rate outside [0, 1] or a seed outside [0, 2**64).

    >>> gl.functional.Noise(0.1, seed=7).after(3)
    Noise(rate=0.1, seed=7, first=3, share=None)
    """

    rate: float
    seed: int | None
    first: int = 0
    share: Share | None = None

    def __post_init__(self) -> None:
        checks.number("rate", self.rate, most=1)
        if self.seed is not None:
            checks.integer("seed", self.seed, 0, 2**64, words="0 <= seed < 2**64, or None")

    def draws(self, shape: tuple[int, ...]) -> Draws:
        """The draws of (T, B, H), or of (B, H) for one mask of all steps."""
        axis = len(shape) - 2
        share = self.share or Share(0, shape[axis], shape[axis])
        return share.draws(shape, axis, self.first)

    def after(self, steps: int) -> "Noise":
        """The noise of the part that begins ``steps`` later."""
        return replace(self, first=self.first + steps)


class Modes(NamedTuple):
    """What may happen to a sequence besides the cell's equations; every field None for nothing.

    alive and clear are (T, B) bool on the host: rows that are not alive at a step keep their state and give
    zeros; the states of a row that enter a step are cleared where ``clear`` is True.
    """

    alive: np.ndarray | None = None
    clear: np.ndarray | None = None
    zoneout_h: Noise | None = None
    zoneout_c: Noise | None = None  # all states but h
    recurrent_dropout: Noise | None = None  # one mask on h_prev for all steps

    def part(self, steps: slice) -> "Modes":
        """The modes of a part of the sequence."""
        alive, clear = (None if mask is None else mask[steps] for mask in (self.alive, self.clear))
        h, c = (None if noise is None else noise.after(steps.start) for noise in (self.zoneout_h, self.zoneout_c))
        return Modes(alive, clear, h, c, self.recurrent_dropout)


class Sequence:
    """Sizes, types, where a sequence runs, and its modes as arrays on the device."""

    def __init__(self, backend: Backend, cell: Cell, dtype: Any, T: int, B: int, H: int, P: int,
                 reverse: bool, modes: Modes) -> None:  # fmt: skip
        self.backend, self.cell, self.dtype, self.reverse = backend, cell, dtype, reverse
        self.T, self.B, self.H, self.P = T, B, H, P
        self.before, self.after = (1, 0) if reverse else (0, 1)  # rows of step t's states in arrays of T + 1 rows
        self.modes = modes
        self.alive: Any = None if modes.alive is None else backend.asarray(modes.alive)
        self.clear: Any = None if modes.clear is None else backend.asarray(modes.clear)
        # (T, B, P|H) shares of the old states that are kept, (1, B, P|H) where they are the same at every step.
        self.shares_h, self.shares_c = self._shares(modes.zoneout_h, P), self._shares(modes.zoneout_c, H)
        self.dropped = None  # (B, P) factors of h_prev in its product
        noise = modes.recurrent_dropout
        if noise is not None and noise.seed is not None:
            kept = bernoulli(backend, (B, P), noise.rate, noise.seed, dtype, noise.draws((B, P)))
            self.dropped = kept if noise.rate == 1 else (kept / (1 - noise.rate)).astype(dtype, copy=False)

    @property
    def keeps(self) -> bool:
        """Whether h may stay what it was, all of it or a share."""
        return self.alive is not None or self.shares_h is not None

    @functools.cached_property
    def stays(self) -> Any:
        """(T, B) bool, whether the states that enter a step stay what they are; None where all do."""
        return None if self.modes.clear is None else self.backend.asarray(~self.modes.clear)

    @property
    def arrays(self) -> list:
        """All arrays of the modes, on the device."""
        arrays = (self.alive, self.clear, self.stays, self.shares_h, self.shares_c, self.dropped)
        return [array for array in arrays if array is not None]

    @functools.cached_property
    def alive_rows(self) -> list:
        """For each step (B,) bool, None where all are alive."""
        if self.modes.alive is None:
            return [None] * self.T
        return [None if alive.all() else self.alive[t] for t, alive in enumerate(self.modes.alive)]

    @functools.cached_property
    def clear_rows(self) -> list:
        """For each step (B, 1) bool, whether the states that enter it stay what they are; None where all do."""
        if self.modes.clear is None:
            return [None] * self.T
        stays = self.stays[:, :, None]
        return [stays[t] if row.any() else None for t, row in enumerate(self.modes.clear)]

    @functools.cached_property
    def keep_h(self) -> list:
        """For each step (B, P) shares of the old h, or None."""
        return self._rows(self.shares_h)

    @functools.cached_property
    def keep_c(self) -> list:
        """For each step (B, H) shares of the other old states, or None."""
        return self._rows(self.shares_c)

    def _rows(self, shares: Any) -> list:
        if shares is None or len(shares) == 1:
            return [None if shares is None else shares[0]] * self.T
        return list(shares)

    def _shares(self, noise: Noise | None, width: int) -> Any:
        if noise is None or noise.rate == 0:
            return None
        if noise.seed is None:
            share = self.backend.empty((1, self.B, width), self.dtype)
            share[...] = noise.rate
            return share
        shape = (self.T, self.B, width)
        return 1 - bernoulli(self.backend, shape, noise.rate, noise.seed, self.dtype, noise.draws(shape))


def alive_by(lengths: Any, mask: Any, T: int, B: int, of: str = "x") -> np.ndarray | None:
    """(T, B) True where a step counts, None for all; ``of`` is the argument whose steps they are.

    lengths (B,) are integers 0..T, mask (T, B) is bool, each of any library. Raises ShapeError or DTypeError for
    others, and for both at once.
    """
    if lengths is not None and mask is not None:
        raise ShapeError("mask: expected lengths or mask, got both")
    if lengths is not None:
        return _mask_of_lengths(lengths, T, B, of)
    return None if mask is None else check_mask("mask", mask, T, B)


def _mask_of_lengths(lengths: Any, T: int, B: int, of: str) -> np.ndarray:
    host = _host("lengths", lengths)
    if host.shape != (B,):
        raise ShapeError(f"lengths: expected ({B},) = (batch,), got {host.shape}")
    if host.dtype.kind not in "iu" and B > 0:
        raise DTypeError(f"lengths: expected integers, got {host.dtype}")
    if B > 0 and (host.min() < 0 or host.max() > T):
        raise ShapeError(f"lengths: expected 0 <= length <= {T}, the steps of {of}, got {host.min()}..{host.max()}")
    return np.arange(T)[:, None] < host


def cleared_by(reset: Any, T: int, B: int, reverse: bool) -> np.ndarray | None:
    """(T, B) True where the states that enter a step are cleared, from where new sequences begin."""
    if reset is None:
        return None
    begins = check_mask("reset", reset, T, B)
    if not reverse:
        return begins
    return np.concatenate([begins[1:], np.zeros((1, B), bool)])  # the border before step t is crossed from t to t - 1


def check_mask(name: str, mask: Any, T: int, B: int) -> np.ndarray:
    """(T, B) bool on the host; raises ShapeError or DTypeError, naming the mask."""
    host = _host(name, mask)
    if host.shape != (T, B):
        raise ShapeError(f"{name}: expected ({T}, {B}) = (steps, batch), got {host.shape}")
    if host.dtype != bool:
        raise DTypeError(f"{name}: expected bool, got {host.dtype}")
    return np.ascontiguousarray(host)  # a kernel takes its rows


def _host(name: str, array: Any) -> np.ndarray:
    try:
        return np.asarray(backend_of(**{name: array}).to_numpy(array) if hasattr(array, "dtype") else array)
    except ValueError as error:
        raise ShapeError(f"{name}: expected an array, or a list with rows of one length, got {array!r}") from error
