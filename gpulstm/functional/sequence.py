"""The settings of one sequence: its sizes, and its masks, resets and noise as arrays."""

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
    """Describes the Bernoulli noise of zoneout or dropout for one sequence: its ``rate`` and the ``seed`` of its draws.

    ``seed=None`` is for evaluation, which uses the mean. Step t uses the draws from number t * B * H on. So you can
    compute a sequence in parts, each from its step ``first`` on, or a ``share`` of the batch, and get the same noise.
    Raises ShapeError for a rate outside [0, 1] or a seed outside [0, 2**64).

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
        """The numbers of the draws for (T, B, H), or for (B, H) if all steps share one mask."""
        axis = len(shape) - 2
        share = self.share or Share(0, shape[axis], shape[axis])
        return share.draws(shape, axis, self.first)

    def after(self, steps: int) -> "Noise":
        """The noise of the part that begins ``steps`` later."""
        return replace(self, first=self.first + steps)


class Modes(NamedTuple):
    """The masks and the noise that act on a sequence besides the cell's equations; None for those that are not used.

    alive and clear are (T, B) bool on the host. Where ``alive`` is False, the sequence keeps its states and its output
    is zero. Where ``clear`` is True, the states that enter the step are set to zero.
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
    """The sizes, dtype and device of a sequence, and its modes as arrays on that device."""

    def __init__(self, backend: Backend, cell: Cell, dtype: Any, T: int, B: int, H: int, P: int,
                 reverse: bool, modes: Modes) -> None:  # fmt: skip
        self.backend, self.cell, self.dtype, self.reverse = backend, cell, dtype, reverse
        self.T, self.B, self.H, self.P = T, B, H, P
        # In arrays of T + 1 rows, step t reads its states from row t + before and writes them to row t + after.
        self.before, self.after = (1, 0) if reverse else (0, 1)
        self.modes = modes
        self.alive: Any = None if modes.alive is None else backend.asarray(modes.alive)
        self.clear: Any = None if modes.clear is None else backend.asarray(modes.clear)
        # (T, B, P|H) shares of the old states that are kept, (1, B, P|H) if they are the same at every step.
        self.shares_h, self.shares_c = self._shares(modes.zoneout_h, P), self._shares(modes.zoneout_c, H)
        self.dropped = None  # (B, P) factors of h_prev in its product
        noise = modes.recurrent_dropout
        if noise is not None and noise.seed is not None:
            kept = bernoulli(backend, (B, P), noise.rate, noise.seed, dtype, noise.draws((B, P)))
            self.dropped = kept if noise.rate == 1 else (kept / (1 - noise.rate)).astype(dtype, copy=False)

    @property
    def keeps(self) -> bool:
        """Whether a step may keep the old h, all of it or a share."""
        return self.alive is not None or self.shares_h is not None

    @functools.cached_property
    def stays(self) -> Any:
        """(T, B) bool, False where the states that enter a step are cleared; None if none are."""
        return None if self.modes.clear is None else self.backend.asarray(~self.modes.clear)

    @property
    def arrays(self) -> list:
        """All arrays of the modes, on the device."""
        arrays = (self.alive, self.clear, self.stays, self.shares_h, self.shares_c, self.dropped)
        return [array for array in arrays if array is not None]

    @functools.cached_property
    def alive_rows(self) -> list:
        """For each step (B,) bool, or None if all sequences are alive."""
        if self.modes.alive is None:
            return [None] * self.T
        return [None if alive.all() else self.alive[t] for t, alive in enumerate(self.modes.alive)]

    @functools.cached_property
    def clear_rows(self) -> list:
        """For each step (B, 1) bool, False where the states that enter it are cleared; None if none are."""
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
    """(T, B) bool, True for valid steps, or None without lengths and mask; ``of`` names the argument with these steps.

    lengths (B,) are integers 0..T, mask (T, B) is bool; each may be an array of any library. Raises ShapeError or
    DTypeError for anything else, and ShapeError if both are given.
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
    """(T, B) bool, True where the states that enter a step are cleared; ``reset`` is True where a sequence begins."""
    if reset is None:
        return None
    begins = check_mask("reset", reset, T, B)
    if not reverse:
        return begins
    return np.concatenate([begins[1:], np.zeros((1, B), bool)])  # step t - 1 ends a sequence if one begins at step t


def check_mask(name: str, mask: Any, T: int, B: int) -> np.ndarray:
    """The mask (T, B) on the host. Raises ShapeError or DTypeError, naming it."""
    host = _host(name, mask)
    if host.shape != (T, B):
        raise ShapeError(f"{name}: expected ({T}, {B}) = (steps, batch), got {host.shape}")
    if host.dtype != bool:
        raise DTypeError(f"{name}: expected bool, got {host.dtype}")
    return np.ascontiguousarray(host)  # kernels read its rows


def _host(name: str, array: Any) -> np.ndarray:
    try:
        return np.asarray(backend_of(**{name: array}).to_numpy(array) if hasattr(array, "dtype") else array)
    except ValueError as error:
        raise ShapeError(f"{name}: expected an array, or a list with rows of one length, got {array!r}") from error
