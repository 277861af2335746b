"""Forecasts of any length from a network that predicts one horizon; longer ones continue from their predictions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PATHS = 100  # futures sampled for the intervals of recursive forecasts
Bounds = dict[float, tuple[np.ndarray, np.ndarray]]  # by coverage: (lower, upper)


def levels_of(coverages: tuple[float, ...]) -> list[float]:
    """Return the two quantile levels of each interval, in the order of the coverages."""
    return [q for c in coverages for q in ((1 - c) / 2, (1 + c) / 2)]


@dataclass(frozen=True)
class Rollout:
    """Forecasts with ``run``, a network that predicts one horizon.

    ``run(past (W, B, F), future (horizon, B, F))`` returns (horizon, B, K, 1 + Q): the mean, then the quantiles.
    """

    run: Callable[[np.ndarray, np.ndarray], np.ndarray]
    horizon: int
    targets: int  # K, the first columns of a row
    coverages: tuple[float, ...]

    def forecast(
        self, past: np.ndarray, future: np.ndarray, *, intervals: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Map past (W, B, F) and future (steps, B, F) to the mean (steps, B, K) and sorted quantiles (steps, B, K, Q).

        A forecast longer than the horizon continues from its own mean. Its quantiles are estimated from ``PATHS``
        sampled futures, each of which continues from its own samples. The seed is fixed, so calls agree.
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
        """Return the intervals, with bounds (...), from sorted quantiles (..., Q)."""
        if quantiles.shape[-1] == 0:
            return {}
        levels = self._levels()
        places = {c: [int(np.argmin(abs(levels - q))) for q in levels_of((c,))] for c in self.coverages}
        return {c: (quantiles[..., low], quantiles[..., high]) for c, (low, high) in places.items()}

    def _horizon(self, past: np.ndarray, future: np.ndarray) -> np.ndarray:
        """Run the network for a future of at most one horizon."""
        steps = len(future)
        if steps < self.horizon:  # pad to a horizon; the outputs for the padding are dropped
            future = np.concatenate([future, np.repeat(future[-1:], self.horizon - steps, axis=0)])
        return self.run(past, future)[:steps]

    def _continued(self, past: np.ndarray, future: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
        """Forecast (steps, B, K) one horizon at a time: the mean, or with a generator one sampled future."""
        window, parts = len(past), []
        for start in range(0, len(future), self.horizon):
            rows = future[start : start + self.horizon].copy()
            out = self._horizon(past, rows)
            rows[..., : self.targets] = out[..., 0] if generator is None else self._drawn(out, generator)
            parts.append(rows[..., : self.targets])
            past = np.concatenate([past, rows])[-window:]
        return np.concatenate(parts)

    def _drawn(self, out: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Sample one future (h, B, K); a series keeps one quantile level for all steps of the horizon.

        Values are interpolated linearly between two quantiles, and extrapolated with the same slope beyond the outer
        ones.
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
