"""Batches of utterances; the features are computed anew in every pass, with data augmentation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.data import Passes, pad_sequences
from gpulstm.errors import FormatError
from gpulstm.labs.speech.features import log_mel, scaled, stacked

GROUP = 16  # batches whose utterances are sorted by length together, so that they need little padding


@dataclass(frozen=True)
class Hearing:
    """Computes the steps that the model reads from a wave, unchanged or changed at random (data augmentation)."""

    sample_rate: int
    bands: int
    low: float
    high: float | None
    stack: int
    noise: tuple[float, float] | None
    speed: float
    warp: float

    def steps(self, wave: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        """Return the steps (T, stack * bands) of a wave (N,); a generator changes the wave at random first."""
        warp = 1.0
        if generator is not None:
            wave, warp = self.changed(wave, generator)
        frames = log_mel(wave, self.sample_rate, self.bands, self.low, self.high, warp)
        return stacked(frames, self.stack)

    def changed(self, wave: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, float]:
        """Return (the wave with a random speed and noise, a random warp of the frequencies)."""
        wave = at_speed(wave, 1 + self.speed * generator.uniform(-1, 1))
        if self.noise is not None:
            level = 10 ** (generator.uniform(*self.noise) / 20)
            drawn = generator.standard_normal(len(wave), np.float32)
            wave = scaled(wave) + (level * drawn).astype(wave.dtype)
        return wave, 1 + self.warp * generator.uniform(-1, 1)


def at_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """Change the speed of a wave, and with it the pitch, as a tape does.

    Linear interpolation is fast, and exact enough for data augmentation.
    """
    positions = np.arange(0, len(wave) - 1e-9, speed)
    return np.interp(positions, np.arange(len(wave)), wave).astype(wave.dtype)


class Utterances(Passes):
    """Batches ((steps (T, B, F), lengths), (targets (S, B), lengths)) of waves and their targets.

    With a ``generator`` every pass has a new order and changes each wave anew. The first pass goes from the shortest to
    the longest utterance, which makes a model learn sooner (SortaGrad, Amodei et al. 2016). In later passes utterances
    of similar length share a batch.
    """

    def __init__(
        self,
        hearing: Hearing,
        waves: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        batch_size: int,
        generator: np.random.Generator | None = None,
    ) -> None:
        self.hearing, self.waves, self.targets, self.batch_size = hearing, waves, targets, batch_size
        self._passes = 0  # passes started so far
        super().__init__(-(-len(waves) // batch_size), generator)

    def __iter__(self) -> Iterator[Any]:
        if not self._restored:
            self._passes += 1
        yield from super().__iter__()

    def _order(self, generator: np.random.Generator | None) -> Any:
        """Return (the indices of each batch, a seed for the random changes)."""
        sizes = np.array([len(wave) for wave in self.waves])
        if generator is None:
            return self._cut(np.arange(len(sizes))), None
        seed = int(generator.integers(2**63))
        order = generator.permutation(len(sizes))
        group = len(sizes) if self._passes == 1 else GROUP * self.batch_size
        parts = [order[n : n + group] for n in range(0, len(order), group)]
        batches = self._cut(np.concatenate([part[np.argsort(sizes[part], kind="stable")] for part in parts]))
        if self._passes > 1:
            batches = [batches[k] for k in generator.permutation(len(batches))]
        return batches, seed

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return [order[n : n + self.batch_size] for n in range(0, len(order), self.batch_size)]

    def _batch(self, order: Any, k: int) -> Any:
        batches, seed = order
        generator = None if seed is None else np.random.default_rng([seed, k])
        examples = [self._example(n, generator) for n in batches[k].tolist()]
        steps = [self.hearing.steps(wave, generator) for wave, _ in examples]
        return pad_sequences(steps), pad_sequences([targets for _, targets in examples])

    def _example(self, number: int, generator: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the unchanged (wave, targets) of this index."""
        return self.waves[number], self.targets[number]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "passes": self._passes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if not isinstance(passes := state_dict["passes"], int) or passes < 0:
            raise FormatError(f"state of batches: expected the number of passes, got {passes!r}")
        self._passes = passes
