"""Utterances in batches: features made anew in every pass, with the changes that teach a model what does not matter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.data import Passes, pad_sequences
from gpulstm.errors import FormatError
from gpulstm.labs.speech.features import log_mel, scaled, stacked

GROUP = 16  # batches whose utterances are put in the order of their lengths, so that little is padded


@dataclass(frozen=True)
class Hearing:
    """How a wave becomes the steps that the model reads, as it is or changed at random."""

    sample_rate: int
    bands: int
    low: float
    high: float | None
    stack: int
    noise: tuple[float, float] | None
    speed: float
    warp: float

    def steps(self, wave: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        """The wave (N,) as steps (T, stack * bands); with a generator the wave is changed first."""
        warp = 1.0
        if generator is not None:
            wave, warp = self.changed(wave, generator)
        frames = log_mel(wave, self.sample_rate, self.bands, self.low, self.high, warp)
        return stacked(frames, self.stack)

    def changed(self, wave: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, float]:
        """(the wave at another speed and with noise, a warp of the frequencies), drawn from the generator."""
        wave = at_speed(wave, 1 + self.speed * generator.uniform(-1, 1))
        if self.noise is not None:
            level = 10 ** (generator.uniform(*self.noise) / 20)
            drawn = generator.standard_normal(len(wave), np.float32)
            wave = scaled(wave) + (level * drawn).astype(wave.dtype)
        return wave, 1 + self.warp * generator.uniform(-1, 1)


def at_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """The wave as a tape at that speed plays it, by linear interpolation: quick, and exact enough to be a change."""
    positions = np.arange(0, len(wave) - 1e-9, speed)
    return np.interp(positions, np.arange(len(wave)), wave).astype(wave.dtype)


class Utterances(Passes):
    """Batches ((steps (T, B, F), lengths), (targets (S, B), lengths)) of waves and their targets.

    With a ``generator`` every pass has a new order and changes each wave anew. In the first pass utterances come
    from the shortest to the longest, from which a model learns sooner (SortaGrad, Amodei et al. 2016); in later ones
    those of about one length share a batch.
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
        self._passes = 0  # begun so far
        super().__init__(-(-len(waves) // batch_size), generator)

    def __iter__(self) -> Iterator[Any]:
        if not self._restored:
            self._passes += 1
        yield from super().__iter__()

    def _order(self, generator: np.random.Generator | None) -> Any:
        """(the numbers of each batch, a seed for the changes)."""
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
        """(wave, targets) of that number, not changed yet."""
        return self.waves[number], self.targets[number]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "passes": self._passes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if not isinstance(passes := state_dict["passes"], int) or passes < 0:
            raise FormatError(f"state of batches: expected the number of passes, got {passes!r}")
        self._passes = passes
