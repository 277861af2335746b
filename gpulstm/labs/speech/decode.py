"""Decode CTC output, the probabilities of each step: greedy decoding and prefix beam search."""

import math
from collections import defaultdict

import numpy as np

from gpulstm import checks
from gpulstm.errors import ShapeError

NOTHING = -math.inf  # log 0
SELDOM = -12.0  # beam search ignores classes with a lower log-probability in a step


def greedy(log_probs: np.ndarray, blank: int = 0) -> list[int]:
    """Take the most probable class of every step, then drop repeats and blanks (Graves et al. 2006).

    log_probs is (T, C). Raises ShapeError for another shape and for a blank that is not a class.
    """
    best = _checked(log_probs, blank).argmax(axis=1)
    changes = np.ones(len(best), bool)
    changes[1:] = best[1:] != best[:-1]
    return best[changes & (best != blank)].tolist()


def beam_search(log_probs: np.ndarray, beam_width: int, blank: int = 0) -> tuple[list[int], float]:
    """Return the most probable targets found by prefix beam search, and the log of their probability.

    log_probs is (T, C). Each step keeps the ``beam_width`` most probable texts. For each text the search tracks, in log
    space, the probability of the paths that end in its last target and of those that end in a blank (Graves 2012;
    Hannun et al. 2014). The result sums over the paths that the search followed. Raises ShapeError for another shape
    and for a width below 1.
    """
    rows = _checked(log_probs, blank).astype(np.float64)
    checks.count("beam_width", beam_width, 1)
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NOTHING)}  # (ends in a blank, in the last target)
    for row in rows:
        heard = [c for c in np.flatnonzero(row > SELDOM).tolist() if c != blank]
        beam = _best(_longer(beam, row.tolist(), heard, blank), beam_width)
    targets, ends = max(beam.items(), key=lambda item: _log_sum(*item[1]))
    return list(targets), _log_sum(*ends)


def _longer(
    beam: dict[tuple[int, ...], tuple[float, float]], row: list[float], heard: list[int], blank: int
) -> dict[tuple[int, ...], list[float]]:
    """Extend the texts of a beam by one step: each stays as it is or gets one more target."""
    after: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [NOTHING, NOTHING])
    for targets, (in_blank, in_target) in beam.items():
        both = _log_sum(in_blank, in_target)
        same = after[targets]
        same[0] = _log_sum(same[0], both + row[blank])
        last = targets[-1] if targets else None
        if last is not None:
            same[1] = _log_sum(same[1], in_target + row[last])  # a repeat continues the same target
        for c in heard:
            longer = after[(*targets, c)]
            # CTC needs a blank between two equal targets.
            longer[1] = _log_sum(longer[1], (in_blank if c == last else both) + row[c])
    return after


def _best(after: dict[tuple[int, ...], list[float]], width: int) -> dict[tuple[int, ...], tuple[float, float]]:
    ranked = sorted(after.items(), key=lambda item: -_log_sum(*item[1]))
    return {targets: (ends[0], ends[1]) for targets, ends in ranked[:width]}


def _log_sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == NOTHING else a + math.log1p(math.exp(b - a))


def _checked(log_probs: np.ndarray, blank: int) -> np.ndarray:
    if log_probs.ndim != 2:
        raise ShapeError(f"log_probs: expected (T, C), got {log_probs.shape}")
    checks.integer("blank", blank, 0, log_probs.shape[1], words=f"a class, 0 <= blank < {log_probs.shape[1]}")
    return log_probs
