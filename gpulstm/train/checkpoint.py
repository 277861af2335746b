"""Checkpoints: all that a run needs to go on, in one safetensors file whose header says how it lies there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.backend import Array, Backend, backend_of
from gpulstm.errors import FormatError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.tape import Tensor

# The one key of the header: several would be written in an order that changes from run to run.
HEADER = "gpulstm"
KIND, VERSION = "checkpoint", 1


def save(path: str | Path, tree: dict) -> None:
    """Write a nest of dicts, lists, tuples, arrays, numbers, strings and None; atomic. Raises OSError."""
    arrays: dict[str, np.ndarray] = {}
    skeleton = _pack(to_host(tree), "", arrays)
    header = json.dumps({"kind": KIND, "version": VERSION, "tree": skeleton})
    save_arrays(path, arrays, {HEADER: header})


def load(path: str | Path) -> dict:
    """What ``save`` wrote, its arrays in NumPy. Raises FormatError for any other file, OSError."""
    arrays, metadata = load_arrays(path)
    try:
        header = json.loads(metadata[HEADER])
        if (header["kind"], header["version"]) != (KIND, VERSION):
            raise FormatError(f"{path}: want a gpulstm {KIND} of version {VERSION}, got a {header['kind']!r}")
        return _unpack(header["tree"], arrays)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: want a gpulstm {KIND}, got a file whose header tells of none") from error


def to_host(tree: Any) -> Any:
    """The same nest with copies in NumPy of its arrays and Tensors."""

    def copy(array: Array) -> np.ndarray:
        return np.array(backend_of(array).to_numpy(array), order="C")

    return _mapped(tree, copy)


def on_device(tree: Any, backend: Backend) -> Any:
    """The same nest with its arrays and Tensors on the device of the backend."""
    return _mapped(tree, backend.asarray)


def detached(tree: Any) -> Any:
    """The same nest with its Tensors cut from the tape."""
    return _mapped(tree, lambda array: array)


def _mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The same nest with ``change`` applied to its arrays and to the data of its Tensors."""
    if isinstance(tree, dict):
        return {key: _mapped(value, change) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(value, change) for value in tree)
    if isinstance(tree, Tensor):
        return Tensor(change(tree.data))
    if isinstance(tree, np.generic):
        return tree.item()
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    return change(tree)


def _pack(tree: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The nest as a value JSON can hold: {"dict": [[key, value], ...]}, {"list": [...]}, {"tuple": [...]},
    and {"array": name} or {"tensor": name} for what goes into ``arrays``."""
    if isinstance(tree, dict):
        return {"dict": [[key, _pack(value, f"{name}/{key}", arrays)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [_pack(value, f"{name}/{k}", arrays) for k, value in enumerate(tree)]}
    if isinstance(tree, Tensor | np.ndarray):
        arrays[name] = tree.data if isinstance(tree, Tensor) else tree
        return {"tensor" if isinstance(tree, Tensor) else "array": name}
    return tree


def _unpack(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "dict":
        return {key: _unpack(value, arrays) for key, value in content}
    if kind in ("list", "tuple"):
        values = [_unpack(value, arrays) for value in content]
        return tuple(values) if kind == "tuple" else values
    if kind not in ("array", "tensor"):
        raise FormatError(f"checkpoint: want a dict, list, tuple, array or tensor, got {kind!r}")
    return Tensor(arrays[content]) if kind == "tensor" else arrays[content]
