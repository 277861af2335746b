"""Forecasts of any length from a network that predicts one horizon: further steps go on from its own predictions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PATHS = 100  # futures drawn for the intervals of forecasts that go on from forecasts
Bounds = dict[float, tuple[np.ndarray, np.ndarray]]  # by coverage: lower and upper


def levels_of(coverages: tuple[float, ...]) -> list[float]:
    """The two quantiles of each interval, in the order of the coverages."""
    return [q for c in coverages for q in ((1 - c) / 2, (1 + c) / 2)]


@dataclass(frozen=True)
class Rollout:
    """``run(past (W, B, F), future (horizon, B, F))`` gives (horizon, B, K, 1 + Q): the mean and the quantiles."""

    run: Callable[[np.ndarray, np.ndarray], np.ndarray]
    horizon: int
    targets: int  # K, the first columns of a row
    coverages: tuple[float, ...]

    def forecast(
        self, past: np.ndarray, future: np.ndarray, *, intervals: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """past (W, B, F) and future (steps, B, F) -> mean (steps, B, K) and sorted quantiles (steps, B, K, Q).

        A forecast longer than the horizon goes on from its own mean; its quantiles are those of ``PATHS`` futures, each
        drawn from the quantiles of the steps before, the same in every call.
        """
        steps, B, _ = future.shape
        if steps <= self.horizon:
            out = self._horizon(past, future)
            return out[..., 0], np.sort(out[..., 1:], axis=-1)
        mean = self._continued(past, future, None)
        if not (intervals and self.coverages):
            return mean, np.zeros((*mean.shape, 0))
        pasts, futures = (np.repeat(part, PATHS, axis=1) for part in (past, future))
        paths = self._continued(pasts, futures, np.random.default_rng(0)).reshape(steps, B, PATHS, self.targets)
        return mean, np.moveaxis(np.quantile(paths, self._levels(), axis=2), 0, -1)

    def bounds(self, quantiles: np.ndarray) -> Bounds:
        """The intervals (...) of sorted quantiles (..., Q)."""
        if quantiles.shape[-1] == 0:
            return {}
        levels = self._levels()
        places = {c: [int(np.argmin(abs(levels - q))) for q in levels_of((c,))] for c in self.coverages}
        return {c: (quantiles[..., low], quantiles[..., high]) for c, (low, high) in places.items()}

    def _horizon(self, past: np.ndarray, future: np.ndarray) -> np.ndarray:
        """What the network says of a future of the horizon or less."""
        steps = len(future)
        if steps < self.horizon:  # what stands there is not asked for
            future = np.concatenate([future, np.repeat(future[-1:], self.horizon - steps, axis=0)])
        return self.run(past, future)[:steps]

    def _continued(self, past: np.ndarray, future: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
        """(steps, B, K), made horizon by horizon, each from the one before: the mean, or a future that is drawn."""
        window, parts = len(past), []
        for start in range(0, len(future), self.horizon):
            rows = future[start : start + self.horizon].copy()
            out = self._horizon(past, rows)
            rows[..., : self.targets] = out[..., 0] if generator is None else self._drawn(out, generator)
            parts.append(rows[..., : self.targets])
            past = np.concatenate([past, rows])[-window:]
        return np.concatenate(parts)

    def _drawn(self, out: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One future (h, B, K) for each row: the same place between the quantiles in all steps of a horizon.

        Between two quantiles the distribution is taken as even, beyond the outer ones as going on as steeply.
        """
        levels = self._levels()
        values = np.sort(out[..., 1:], axis=-1)  # (h, B, K, Q)
        u = generator.random(out.shape[1:3])
        at = np.clip(np.searchsorted(levels, u) - 1, 0, len(levels) - 2)
        share = (u - levels[at]) / (levels[at + 1] - levels[at])
        index = np.broadcast_to(at, out.shape[:3])[..., None]
        low, high = (np.take_along_axis(values, index + k, axis=-1)[..., 0] for k in (0, 1))
        return low + share * (high - low)

    def _levels(self) -> np.ndarray:
        return np.sort(levels_of(self.coverages))
