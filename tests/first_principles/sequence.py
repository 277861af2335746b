"""A sequence computed one row and one step at a time, with every mode written out: what the time loop is held against.

Each cell's ``step(x, states, w, **options)`` stands in the file of its name.
"""

import numpy as np

MASK = 2**64 - 1


def draw(seed: int, k: int) -> int:
    """The k-th 16-bit draw of a seed: SplitMix64 (Steele, Lea & Flood 2014), four draws a word, lowest first."""
    z = (seed + (k // 4 + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return ((z ^ (z >> 31)) >> (16 * (k % 4))) & 0xFFFF


def bernoulli(shape: tuple[int, ...], rate: float, seed: int) -> np.ndarray:
    """True where something is dropped."""
    size = int(np.prod(shape))
    return np.array([draw(seed, k) < round(rate * 65536) for k in range(size)], bool).reshape(shape)


def share(noise, shape: tuple[int, ...]) -> np.ndarray:
    """(T, B, width) shares of the old state that zoneout keeps."""
    if noise is None:
        return np.zeros(shape)
    return np.full(shape, noise.rate) if noise.seed is None else bernoulli(shape, noise.rate, noise.seed) * 1.0


def run(step, x, states, w, *, alive=None, reset=None, zoneout=(None, None), recurrent_dropout=None,
        reverse=False, names=("h",), **options):  # fmt: skip
    """(y, *states_n) as functional.recurrent defines them, for float64 arrays; w by name, w["w_hr"] projects h."""
    T, B, _ = x.shape
    H = w["w_hh"].shape[0] if "gates" not in w else w["w_hh"].shape[0] // w["gates"]
    P = w["w_hh"].shape[1]
    widths = [P] + [H] * (len(names) - 1)
    shares = [share(zoneout[0], (T, B, P))] + [share(zoneout[1], (T, B, H))] * (len(names) - 1)
    factor = np.ones((B, P))
    if recurrent_dropout is not None and recurrent_dropout.seed is not None:
        rate = recurrent_dropout.rate
        dropped = bernoulli((B, P), rate, recurrent_dropout.seed)
        factor = np.where(dropped, 0.0, 1 / (1 - rate) if rate < 1 else 0.0)
    y = np.zeros((T, B, P))
    last = [np.zeros((B, width)) for width in widths]
    for b in range(B):
        now = [np.zeros(width) if s is None else s[b].copy() for s, width in zip(states, widths, strict=True)]
        mine = {**w, "w_hh": w["w_hh"] * factor[b]}  # U (m h) = (U m) h
        for t in reversed(range(T)) if reverse else range(T):
            border = t + 1 if reverse else t  # the border between two steps that is crossed here
            if reset is not None and border < T and reset[border, b]:
                now = [np.zeros_like(s) for s in now]
            if alive is not None and not alive[t, b]:
                continue
            after = step(x[t, b], now, mine, **options)
            if w["w_hr"] is not None:
                after[0] = w["w_hr"] @ after[0]
            now = [s[t, b] * old + (1 - s[t, b]) * new for s, old, new in zip(shares, now, after, strict=True)]
            y[t, b] = now[0]
        for k, s in enumerate(now):
            last[k][b] = s
    return (y, *last)
