"""Log-mel features: the logarithms of the power in mel bands, every 10 ms, from a NumPy or CuPy wave."""

import math
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_floats
from gpulstm.precision import IEEE, precision

WINDOW, HOP = 0.025, 0.010  # seconds in a frame, and between the starts of two frames
EMPHASIS = 0.97
FLOOR = 1e-3  # added to the power: about the power of noise 60 dB below a wave with a mean square of 1
SPREAD = 2.5  # about the standard deviation of the logarithms


def log_mel(
    wave: Array, sample_rate: int, bands: int = 20, low: float = 60.0, high: float | None = None, warp: float = 1.0
) -> Array:
    """Compute the log-mel features (T, bands) of a wave (N,), one frame every 10 ms.

    A frame is 25 ms long and has a Hamming window; T is at least 1. These are the steps:

    1. Scale the wave to a mean square of 1.
    2. Apply pre-emphasis: y[n] = x[n] - 0.97 x[n - 1].
    3. Sum the power spectrum of each frame over ``bands`` triangles from ``low`` to ``high`` Hz, equally wide in mel
       (Davis & Mermelstein 1980).
    4. Return log(power + 1e-3), minus the mean of each band over the wave, divided by 2.5.

    ``warp`` multiplies the frequencies of the triangles, as a shorter or longer vocal tract would. The wave is a NumPy
    or CuPy array of floats, and the result has its dtype. Raises ShapeError for an empty wave, for numbers below 1 and
    for bands that do not fit the sample rate; DTypeError for a wave that is not of floats.
    """
    check_floats(wave=wave)
    for name, value in (("sample_rate", sample_rate), ("bands", bands)):
        checks.count(name, value, 1)
    if wave.ndim != 1 or wave.size == 0:
        raise ShapeError(f"wave: expected (N,) with N > 0 samples, got {wave.shape}")
    backend = backend_of(wave)
    with backend as on:
        power = _power(on.xp, scaled(wave), sample_rate)  # (T, bins)
        filters = mel_filters(bands, transform_size(sample_rate), sample_rate, low, high, warp)
        logs = on.xp.log(_summed(on, power, on.asarray(filters.astype(wave.dtype))) + FLOOR)  # (T, bands)
        return ((logs - logs.mean(axis=0)) / SPREAD).astype(wave.dtype, copy=False)


def _summed(on: Backend, power: Array, filters: Array) -> Array:
    """Return power (T, bins) @ filters.T (bins, bands), in full precision whatever the precision of the network."""
    if on.is_cuda:
        with precision(IEEE):
            return on.matmul(power, filters.T)
    # Not a BLAS product: for so little work its threads would only take cores from those of the LSTM.
    return on.xp.einsum("tk,bk->tb", power, filters)


def scaled(wave: Array) -> Array:
    """Scale the wave to a mean square of 1; silence stays silence."""
    xp = backend_of(wave).xp
    return wave / xp.maximum(xp.sqrt((wave.astype(np.float64) ** 2).mean()), 1e-10).astype(wave.dtype)


def frame_sizes(sample_rate: int) -> tuple[int, int]:
    """Return (samples in a frame, samples between the starts of two frames)."""
    return max(2, round(WINDOW * sample_rate)), max(1, round(HOP * sample_rate))


def transform_size(sample_rate: int) -> int:
    """Return the size of a frame's Fourier transform: the next power of 2."""
    return int(2 ** math.ceil(math.log2(frame_sizes(sample_rate)[0])))


def frames_in(samples: int, sample_rate: int) -> int:
    """Return how many frames ``log_mel`` makes from this many samples."""
    size, hop = frame_sizes(sample_rate)
    return 1 + max(0, samples - size) // hop


def _power(xp: Any, wave: Array, sample_rate: int) -> Array:
    """Return the power spectrum of each frame, (T, bins)."""
    size, hop = frame_sizes(sample_rate)
    T = frames_in(wave.size, sample_rate)
    emphasised = xp.zeros(max(wave.size, size), wave.dtype)
    emphasised[: wave.size] = wave
    emphasised[1 : wave.size] -= EMPHASIS * wave[:-1]
    frames = emphasised[hop * xp.arange(T)[:, None] + xp.arange(size)]  # (T, size)
    window = (0.54 - 0.46 * xp.cos(2 * math.pi * xp.arange(size) / (size - 1))).astype(wave.dtype)
    spectrum = xp.fft.rfft(frames * window, n=transform_size(sample_rate), axis=1)
    return spectrum.real**2 + spectrum.imag**2


def mel_filters(
    bands: int, size: int, sample_rate: int, low: float = 60.0, high: float | None = None, warp: float = 1.0
) -> np.ndarray:
    """Return triangular filters (bands, size // 2 + 1) over the bins of a Fourier transform of ``size`` samples.

    Triangle k rises from the centre of k - 1 to its own centre, where it is 1, and falls to the centre of k + 1.
    ``high`` defaults to 97.5 % of half the sample rate. Raises ShapeError unless 0 <= low < high <= sample_rate / 2 and
    each triangle contains a bin.
    """
    high = top(sample_rate) if high is None else high
    if not 0 <= low < high <= sample_rate / 2:
        raise ShapeError(
            f"low, high: expected 0 <= low < high <= {sample_rate / 2:g}, half the rate, got {low}, {high}"
        )
    corners = warp * hertz(np.linspace(mel(low), mel(high), bands + 2))[:, None]  # (bands + 2, 1)
    bins = np.arange(size // 2 + 1) * (sample_rate / size)
    rise = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    fall = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    filters = np.maximum(0, np.minimum(rise, fall))
    if warp == 1 and not filters.any(axis=1).all():
        empty = int(np.argmin(filters.any(axis=1)))
        raise ShapeError(
            f"bands: expected few enough that each contains a frequency, got {bands}, of which band {empty} has none"
        )
    return filters


def top(sample_rate: int) -> float:
    """Return the default highest frequency of the bands, in Hz."""
    return 0.975 * sample_rate / 2


def mel(hertz: Any) -> Any:
    """Convert hertz to mel: 2595 log10(1 + f / 700) (O'Shaughnessy 1987)."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def hertz(mel: Any) -> Any:
    """Convert mel to hertz, the inverse of ``mel``."""
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)


def stacked(frames: Array, count: int) -> Array:
    """Join each ``count`` frames to one step: (T, F) -> (ceil(T / count), count * F), padded with zeros."""
    T, F = frames.shape
    steps = -(-T // count)
    with backend_of(frames) as on:
        rows = on.xp.zeros((steps * count, F), frames.dtype)
        rows[:T] = frames
        return rows.reshape(steps, count * F)
