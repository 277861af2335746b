"""What the transcriber hears: logarithms of the power in mel bands, every 10 ms, from a wave on either library."""

import math
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_floats
from gpulstm.precision import IEEE, precision

WINDOW, HOP = 0.025, 0.010  # seconds of a frame, and from one frame to the next
EMPHASIS = 0.97
FLOOR = 1e-3  # added to the power: about that of noise 60 dB below a wave with a mean square of 1
SPREAD = 2.5  # about the standard deviation of the logarithms


def log_mel(
    wave: Array, sample_rate: int, bands: int = 20, low: float = 60.0, high: float | None = None, warp: float = 1.0
) -> Array:
    """A wave (N,) -> its frames (T, bands): 25 ms with a Hamming window, every 10 ms; T is 1 at least.

    After pre-emphasis, y[n] = x[n] - 0.97 x[n - 1], the power spectrum of each frame is summed in ``bands`` triangles,
    equally wide in mel (Davis & Mermelstein 1980), from ``low`` to ``high`` Hz. The result is log(power + 1e-3), less
    the mean of each band over the wave, divided by 2.5. The wave is first scaled to a mean square of 1.

    ``warp`` multiplies the frequencies of the triangles, as a shorter or longer vocal tract would. NumPy or CuPy; the
    type of the result is that of the wave. Raises ShapeError for an empty wave, for numbers below 1 and for bands that
    do not fit; DTypeError for a wave that is no floats.
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
    """power (T, bins) @ filters' (bins, bands), exactly whatever the precision of the network."""
    if on.is_cuda:
        with precision(IEEE):
            return on.matmul(power, filters.T)
    # Not a product of BLAS, whose threads would take the processor from those of the LSTM for so little work.
    return on.xp.einsum("tk,bk->tb", power, filters)


def scaled(wave: Array) -> Array:
    """The wave with a mean square of 1; silence stays silence."""
    xp = backend_of(wave).xp
    return wave / xp.maximum(xp.sqrt((wave.astype(np.float64) ** 2).mean()), 1e-10).astype(wave.dtype)


def frame_sizes(sample_rate: int) -> tuple[int, int]:
    """(samples in a frame, samples from one to the next)."""
    return max(2, round(WINDOW * sample_rate)), max(1, round(HOP * sample_rate))


def transform_size(sample_rate: int) -> int:
    """Samples in a Fourier transform of a frame: the next power of 2."""
    return int(2 ** math.ceil(math.log2(frame_sizes(sample_rate)[0])))


def frames_in(samples: int, sample_rate: int) -> int:
    """How many frames ``log_mel`` makes of so many samples."""
    size, hop = frame_sizes(sample_rate)
    return 1 + max(0, samples - size) // hop


def _power(xp: Any, wave: Array, sample_rate: int) -> Array:
    """The power spectrum of each frame (T, bins)."""
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
    """Triangles over the bins of a Fourier transform of ``size`` samples: (bands, size // 2 + 1), highest value 1.

    Triangle k rises from the centre of k - 1 and falls to that of k + 1. Without ``high`` it is 97.5 % of half the
    sample rate. Raises ShapeError unless 0 <= low < high <= sample_rate / 2 and each triangle holds a bin.
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
            f"bands: expected as many as there are frequencies for, got {bands}, of which {empty} has none"
        )
    return filters


def top(sample_rate: int) -> float:
    """The usual highest frequency of the bands, in Hz."""
    return 0.975 * sample_rate / 2


def mel(hertz: Any) -> Any:
    """Frequency in mel, 2595 log10(1 + f / 700) (O'Shaughnessy 1987)."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def hertz(mel: Any) -> Any:
    """The inverse of ``mel``."""
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)


def stacked(frames: Array, count: int) -> Array:
    """``count`` frames side by side as one step: (T, F) -> (ceil(T / count), count * F), filled up with zeros."""
    T, F = frames.shape
    steps = -(-T // count)
    with backend_of(frames) as on:
        rows = on.xp.zeros((steps * count, F), frames.dtype)
        rows[:T] = frames
        return rows.reshape(steps, count * F)
