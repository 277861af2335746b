"""Finds the target in a batch, and counts the items that the loss averages over."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gpulstm.backend import Array, backend_of
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.tape import tensor

IGNORED = -100  # an integer target that cross_entropy leaves out
TARGETS = ("target", "targets", "label", "labels", "y")
ADVICE = "give Trainer(..., tokens=function); tokens(batch) returns the number of items the loss averages over"
Pair = tuple[Array, Array]  # a padded array and its lengths


def target_of(batch: Any) -> Array | Pair:
    """Find the target in a batch: the last entry of a tuple or list, a named entry of a dict, or the array itself.

    The names are ``TARGETS``; nested tuples, lists and dicts are searched. A pair (padded, lengths) inside a batch, as
    ``gl.data.Batches`` makes it from sequences, is returned as a tuple. Raises DTypeError if there is no target.
    """
    found = _search(plain(batch), top=True)
    if found is None:
        names = ", ".join(map(repr, TARGETS))
        got = f"a dict of {', '.join(map(repr, batch))}" if isinstance(batch, dict) else type(batch).__name__
        want = f"a tuple that ends in the target, or a dict with one of {names}"
        raise DTypeError(f"batch: expected {want}, got {got}; {ADVICE}")
    return found


def count_tokens(batch: Any) -> Any:
    """Count the items that the loss of a batch averages over: the elements of its target.

    The target is the last entry of a tuple or list, or the entry of a dict named target, targets, label, labels or y.
    In a pair (padded (T, B, ...), lengths (B,)) only the steps within the lengths count. Integer targets of -100 do not
    count. For an integer target on a GPU the result is an array of one number, so that the host does not wait. Raises
    DTypeError for a batch without a target.

    >>> gl.train.count_tokens((np.zeros((3, 8)), np.array([1, 2, -100])))
    2
    """
    target = target_of(batch)
    padded, lengths = target if isinstance(target, tuple) else (target, None)
    with backend_of(padded) as backend:
        counted = padded.size
        if padded.dtype.kind == "i":
            kept = (padded != IGNORED).sum()
            counted = kept if backend.is_cuda else int(kept)
        if lengths is None or (padded.dtype.kind == "i" and int(counted) < padded.size):
            return counted
        return int(lengths.sum()) * math.prod(padded.shape[2:])


def within(padded: Array, lengths: Array) -> Array:
    """A boolean mask of a padded array's shape: True for the elements within the length of their sequence.

    The array is (T, B, ...) or (B, T, ...). If both fit, the padding decides: all elements beyond the lengths are
    equal. If that does not decide either, it is (T, B, ...).
    """
    backend = backend_of(padded)
    masks = []
    for axis in (1, 0):  # the axis of the examples
        if padded.shape[axis] == lengths.size and int(lengths.max()) <= padded.shape[1 - axis]:
            mask = backend.xp.arange(padded.shape[1 - axis])[:, None] < lengths
            mask = (mask if axis == 1 else mask.T).reshape(*padded.shape[:2], *[1] * (padded.ndim - 2))
            masks.append(backend.xp.broadcast_to(mask, padded.shape))
    fitting = [mask for mask in masks if len(set(padded[~mask].tolist())) <= 1] if len(masks) > 1 else masks
    return (fitting or masks)[0]


def plain(batch: Any) -> Any:
    """The same nested tuples, lists and dicts, with Tensors and other libraries' arrays as NumPy or CuPy arrays."""
    if type(batch) is np.ndarray:  # by far the most common case
        return batch
    if isinstance(batch, dict):
        return {name: plain(part) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return tuple(map(plain, batch)) if isinstance(batch, tuple) else list(map(plain, batch))
    if isinstance(batch, np.generic):
        return batch.item()
    return tensor(batch).data if hasattr(batch, "shape") and hasattr(batch, "dtype") else batch


def leaves(batch: Any) -> Iterator[Array]:
    """The arrays in nested tuples, lists and dicts."""
    if _is_array(batch):
        yield batch
    for part in _parts(batch):
        yield from leaves(part)


def padded_arrays(batch: Any) -> Iterator[Array]:
    """The padded arrays of the pairs (padded, lengths) in nested tuples, lists and dicts."""
    if _is_padded(batch):
        yield batch[0]
    else:
        for part in _parts(batch):
            yield from padded_arrays(part)


def checked_count(count: Any) -> Any:
    """The count that the user's ``tokens`` returned: a number of at least 0, or an array of one number on a device.

    Raises DTypeError and ShapeError for anything else.
    """
    count = plain(count)
    if isinstance(count, np.ndarray) and count.size == 1:
        count = count.item()
    if isinstance(count, bool) or not (_is_number(count) or (_is_array(count) and count.size == 1)):
        raise DTypeError(f"tokens: expected a function that returns a number, got {count!r:.80} from it")
    if _is_number(count) and not (count >= 0 and math.isfinite(count)):
        raise ShapeError(f"tokens: expected a function that returns a number from 0 up, got {count} from it")
    return count


def _search(batch: Any, top: bool = False) -> Any:
    """The target in nested tuples, lists and dicts; None if there is none."""
    if _is_array(batch):
        return batch
    if isinstance(batch, dict):
        return _search_dict(batch)
    if _is_number(batch) or (isinstance(batch, list) and not top and _only_numbers(batch)):
        return np.asarray(batch)
    if isinstance(batch, list | tuple) and batch:
        # The batch itself, (x, y), is an input and its labels; only deeper can a pair be (padded, lengths).
        return tuple(batch) if not top and _is_padded(batch) else _search(batch[-1])
    return None


def _search_dict(batch: dict) -> Any:
    names = [name for name in TARGETS if name in batch]
    if len(names) > 1:
        raise DTypeError(f"batch: expected one target, got {' and '.join(map(repr, names))}; {ADVICE}")
    if names:
        return _search(batch[names[0]])
    inner = [found for part in batch.values() if isinstance(part, dict) and (found := _search_dict(part)) is not None]
    return inner[0] if len(inner) == 1 else None


def _is_padded(batch: Any) -> bool:
    """Whether this is (padded, lengths): one integer per index of one axis, none above the size of the other axis."""
    if not isinstance(batch, list | tuple) or len(batch) != 2 or not all(map(_is_array, batch)):
        return False
    padded, lengths = batch
    if padded.ndim < 2 or lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        return False
    longest = int(lengths.max()) if lengths.size else 0
    return any(padded.shape[b] == lengths.size and longest <= padded.shape[1 - b] for b in (0, 1))


def _parts(batch: Any) -> Iterable[Any]:
    if isinstance(batch, dict):
        return batch.values()
    return batch if isinstance(batch, list | tuple) else ()


def _is_array(part: Any) -> bool:
    return hasattr(part, "shape") and hasattr(part, "dtype")


def _is_number(part: Any) -> bool:
    return isinstance(part, bool | int | float)


def _only_numbers(part: Any) -> bool:
    """Whether this is a number, or nested lists of numbers."""
    return _is_number(part) or (isinstance(part, list) and all(map(_only_numbers, part)))
