"""Generate recordings, the lab's default data: strings of digits, each a short pattern of tones, with noise."""

import numpy as np

ROWS = (600, 830, 1150)  # Hz of a digit's first tone
COLUMNS = (1500, 2000, 2600, 3300)  # Hz of its second tone
MOST, FEWEST = 7, 3  # digits in a string
GAP = (0.05, 0.15)  # seconds of silence between digits


def digit_wave(digit: int, sample_rate: int, speed: float, pitch: float) -> np.ndarray:
    """Return a digit's wave (N,): its own pair of a low and a high tone, one after the other, 70 ms each at speed 1."""
    size = max(8, round(0.07 * sample_rate / speed))
    fade = np.sin(np.pi * np.arange(size) / size) ** 0.5
    at = 2 * np.pi * pitch * np.arange(size) / sample_rate
    return np.concatenate([fade * np.sin(at * ROWS[digit // 4]), fade * np.sin(at * COLUMNS[digit % 4])])


def tone_string(digits: list[int], sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Return a string of digits (N,) with the same pitch and loudness, varying speeds, silences and noise."""
    pitch = generator.uniform(0.95, 1.05)
    parts = [np.zeros(round(generator.uniform(*GAP) * sample_rate))]
    for digit in digits:
        parts.append(digit_wave(digit, sample_rate, generator.uniform(0.75, 1.35), pitch))
        parts.append(np.zeros(round(generator.uniform(*GAP) * sample_rate)))
    wave = np.concatenate(parts)
    noise = 10 ** generator.uniform(-2.5, -0.7) * generator.standard_normal(len(wave))
    return (generator.uniform(0.1, 0.5) * (wave + noise)).astype(np.float32)


def tone_strings(count: int, sample_rate: int, seed: int = 0) -> tuple[list[np.ndarray], list[str]]:
    """Generate ``count`` waves of 3 to 7 digits at ``sample_rate``, and their texts, such as "40271"."""
    generator = np.random.default_rng(seed)
    waves, texts = [], []
    for _ in range(count):
        digits = generator.integers(10, size=generator.integers(FEWEST, MOST + 1)).tolist()
        waves.append(tone_string(digits, sample_rate, generator))
        texts.append("".join(map(str, digits)))
    return waves, texts
