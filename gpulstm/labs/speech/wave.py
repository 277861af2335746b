"""Read WAV files (8, 16, 24 and 32 bit, floats, several channels, any sample rate), and resample waves."""

import math
import struct
from pathlib import Path

import numpy as np

from gpulstm import checks
from gpulstm.errors import FormatError, ShapeError

MOST_BYTES = 2**28  # of a file: 256 MiB, over four hours at 8 kHz and 16 bit
RATES = 1000, 768_000  # the lowest and the highest sample rate that is accepted
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
ZEROS = 16  # zero crossings of the sinc on each side
BLOCK = 8192  # output samples computed at once


def read_wave(file: str | Path, sample_rate: int) -> np.ndarray:
    """Read a WAV file: float32 samples (N,) from -1 to 1, resampled to ``sample_rate``.

    Several channels are averaged to one. Raises FormatError for a file that is not a supported WAV file or is larger
    than 256 MiB; OSError if it cannot be read.
    """
    with Path(file).open("rb") as raw:
        return wave_in(raw.read(MOST_BYTES + 1), str(file), sample_rate)


def wave_in(data: bytes, name: str, sample_rate: int) -> np.ndarray:
    """Return the samples in the bytes of a WAV file, as ``read_wave`` does; ``name`` is for messages."""
    if len(data) > MOST_BYTES:
        raise FormatError(f"{name}: expected at most {MOST_BYTES // 2**20} MiB, got more; cut the recording into parts")
    kind, channels, rate, bits, samples = _chunks(data, name)
    if not 1 <= channels <= 64:
        raise FormatError(f"{name}: expected 1 to 64 channels, got {channels}")
    if not RATES[0] <= rate <= RATES[1]:
        raise FormatError(f"{name}: expected a sample rate from {RATES[0]:,} to {RATES[1]:,} Hz, got {rate:,}")
    numbers = _numbers(kind, bits, samples, name)
    if numbers.size % channels:
        raise FormatError(f"{name}: expected whole frames of {channels} channels, got {numbers.size} samples")
    if numbers.size == 0:
        raise FormatError(f"{name}: expected a recording, got one without samples")
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(numbers.astype(np.float32))
    if not finite.all():
        raise FormatError(f"{name}: expected finite samples, got {numbers[~finite][0]}")
    return resample(numbers.reshape(-1, channels).mean(axis=1), rate, sample_rate).astype(np.float32)


def _chunks(data: bytes, name: str) -> tuple[int, int, int, int, bytes]:
    """Return (kind, channels, rate, bits, samples) from the chunks of a RIFF file."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise FormatError(f"{name}: expected a WAV file, got {'an empty file' if not data else 'another file'}")
    at, form = 12, None
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        if kind == b"fmt ":
            form = _form(body, name)
        elif kind == b"data":
            if form is None:
                raise FormatError(f"{name}: expected a 'fmt ' chunk before the samples, got none")
            # A program that writes to a pipe does not know the size, and writes 0 or the largest number.
            if len(body) < size < 0xFFFFFF00:
                raise FormatError(
                    f"{name}: expected {size:,} bytes of samples, got {len(body):,}: the file is cut short"
                )
            return (*form, body)
        at += 8 + size + size % 2
    raise FormatError(f"{name}: expected a WAV file with samples, got a file without; is it cut short?")


def _form(body: bytes, name: str) -> tuple[int, int, int, int]:
    """Return (kind, channels, rate, bits) from the chunk "fmt "."""
    if len(body) < 16:
        raise FormatError(f"{name}: expected a 'fmt ' chunk of at least 16 bytes, got {len(body)}")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if kind == EXTENSIBLE and len(body) >= 26:
        kind = int.from_bytes(body[24:26], "little")  # the first bytes of the format's GUID
    return kind, channels, rate, bits


def _numbers(kind: int, bits: int, samples: bytes, name: str) -> np.ndarray:
    """Convert samples to float64 numbers from -1 to 1; an incomplete sample at the end is left out."""
    if (kind, bits) not in {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)}:
        what = {PCM: "PCM", FLOAT: "floats"}.get(kind, f"compressed samples (format {kind})")
        raise FormatError(f"{name}: expected 8, 16, 24 or 32 bit PCM or 32-bit floats, got {what} of {bits} bits")
    width = bits // 8
    samples = samples[: len(samples) // width * width]
    if kind == FLOAT:
        return np.frombuffer(samples, f"<f{width}").astype(np.float64)
    if bits == 8:  # the only unsigned one
        return (np.frombuffer(samples, np.uint8) - 128.0) / 128
    if bits == 24:
        wide = np.zeros((len(samples) // 3, 4), np.uint8)  # the three bytes, above a zero byte
        wide[:, 1:] = np.frombuffer(samples, np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4") / 2.0**31
    return np.frombuffer(samples, f"<i{width}") / 2.0 ** (bits - 1)


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resample a wave (N,) to another sample rate: returns (ceil(N * new_rate / rate),), float64.

    Uses band-limited interpolation (Smith & Gossett 1984): a sinc with 16 zero crossings on each side under a Hann
    window, with a cutoff at half the lower rate. The wave counts as 0 before its start and after its end. With equal
    rates the wave itself is returned. Raises ShapeError for another shape and for rates below 1.
    """
    rate, new_rate = checks.count("rate", rate, 1), checks.count("new_rate", new_rate, 1)
    if np.ndim(wave) != 1:
        raise ShapeError(f"wave: expected (N,), got {np.shape(wave)}")
    if rate == new_rate:
        return wave
    up, down = new_rate // math.gcd(rate, new_rate), rate // math.gcd(rate, new_rate)
    cutoff = min(1.0, new_rate / rate)
    half = math.ceil(ZEROS / cutoff)
    taps = np.arange(1 - half, half + 1)
    padded = np.concatenate([np.zeros(half), wave, np.zeros(half + 1)])

    def weights(phases: np.ndarray) -> np.ndarray:
        """Return filter weights (phases, taps) for positions ``phase / up`` after a sample."""
        offset = taps - phases[:, None] / up
        window = np.where(np.abs(offset) < half, np.cos(np.pi * offset / (2 * half)) ** 2, 0)
        return cutoff * np.sinc(cutoff * offset) * window

    table = weights(np.arange(up)) if up <= BLOCK else None  # phases repeat after ``up`` samples
    out = np.empty(-(-len(wave) * up // down))
    for start in range(0, len(out), BLOCK):
        before, phases = np.divmod(np.arange(start, min(start + BLOCK, len(out))) * down, up)
        around = padded[before[:, None] + (taps + half)]
        out[start : start + BLOCK] = (around * (weights(phases) if table is None else table[phases])).sum(axis=1)
    return out
