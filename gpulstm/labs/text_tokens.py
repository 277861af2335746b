"""The tokens of a prepared corpus: ids in files of bounded size (shards); a slice reads only its own part."""

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.files import atomic_write


def dtype_for(vocabulary_size: int) -> np.dtype:
    """Return the dtype of the files: two bytes if the ids fit, else four; little-endian on every machine."""
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")


def shard_file(folder: Path, number: int) -> Path:
    """Return the file of shard ``number``, from 0; no file stores its name, so a corpus cannot refer to other files."""
    return folder / f"tokens-{number:05d}.bin"


def write_numbers(file: Path, arrays: Iterable[np.ndarray], dtype: np.dtype) -> dict[str, Any]:
    """Write all ids to one file, atomically; return {"tokens": their number, "sha256": that of the file}."""
    known, tokens = hashlib.sha256(), 0

    def write(opened: BinaryIO) -> None:
        nonlocal tokens
        for array in arrays:
            data = array.astype(dtype, copy=False).tobytes()
            opened.write(data)
            known.update(data)
            tokens += len(array)

    atomic_write(file, write)
    return {"tokens": tokens, "sha256": known.hexdigest()}


class Tokens:
    """Token ids (N,) on disk; ``tokens[start:stop]`` reads them as int64.

    The files are read, not memory-mapped. Pages of a memory map count as the process's memory until the system
    reclaims them, and a file that is truncated while it is mapped crashes the process.

    Raises FormatError, naming the file, for a file of the wrong size, and on reading for ids that are not in the
    vocabulary; OSError for a file that cannot be read.
    """

    def __init__(self, folder: Path, shards: Sequence[int], vocabulary_size: int) -> None:
        """``shards`` holds the number of tokens in each file."""
        self._folder, self._size, self._dtype = folder, vocabulary_size, dtype_for(vocabulary_size)
        self._ends = list(itertools.accumulate(shards))
        self._part = range(self._ends[-1] if shards else 0)
        for number, tokens in enumerate(shards):
            file = shard_file(folder, number)
            if (got := file.stat().st_size) != (want := tokens * self._dtype.itemsize):
                raise FormatError(f"{file}: expected {want:,} bytes, {self._dtype.itemsize} per token, got {got:,}")

    def __len__(self) -> int:
        return len(self._part)

    def part(self, start: int, stop: int | None = None) -> "Tokens":
        """Return the tokens from ``start`` to ``stop``, without reading them yet."""
        tokens = Tokens.__new__(Tokens)
        vars(tokens).update(vars(self), _part=self._part[start:stop])
        return tokens

    def __getitem__(self, part: slice) -> np.ndarray:
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise DTypeError(f"tokens: expected a slice without a step, e.g. tokens[3:7], got [{part!r}]")
        wanted, arrays = self._part[part], [np.empty(0, np.int64)]  # makes the result int64
        start = wanted.start
        while start < wanted.stop:
            number = bisect.bisect_right(self._ends, start)
            stop = min(wanted.stop, self._ends[number])
            first = self._ends[number - 1] if number else 0
            arrays.append(self._read(number, start - first, stop - start))
            start = stop
        return np.concatenate(arrays)

    def _read(self, number: int, start: int, count: int) -> np.ndarray:
        file = shard_file(self._folder, number)
        numbers = np.fromfile(file, self._dtype, count, offset=start * self._dtype.itemsize)
        if len(numbers) < count:
            raise FormatError(
                f"{file}: expected {count} tokens from token {start} on, got {len(numbers)}; the file was cut off"
            )
        if (largest := int(numbers.max(initial=0))) >= self._size:
            raise FormatError(f"{file}: expected numbers below {self._size}, the size of the vocabulary, got {largest}")
        return numbers
