"""Nested dicts, lists, tuples, arrays and plain values in one safetensors file, with their structure in its header."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arguments import renamed
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.errors import DTypeError, FormatError, type_name
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.tape import Tensor, raw

# The one key of the header: several would be written in an order that changes from run to run.
HEADER = "gpulstm"
KIND, VERSION = "checkpoint", 1
DEEPEST = 100  # nested levels
_PLAIN = (bool, int, float, str, type(None))


class State(dict):
    """The result of an object's ``state_dict``, as a type of its own to tell it from a dict of the user's."""


def save(path: str | Path, tree: Any) -> None:
    """Write nested dicts, lists, tuples, arrays, Tensors, numbers, strings and None, atomically.

    Keys of dicts are strings, numbers, None or tuples of them. Raises DTypeError, naming the place, for anything
    else, FormatError for more than 100 nested levels, and OSError.
    """
    arrays: dict[str, Array] = {}
    skeleton = _pack(tree, (), arrays)
    save_arrays(path, arrays, {HEADER: json.dumps({"kind": KIND, "version": VERSION, "tree": skeleton})})


def load(path: str | Path) -> Any:
    """Read a file of ``save``, with its arrays as NumPy arrays. Raises FormatError for any other file, and OSError."""
    arrays, metadata = load_arrays(path)
    return tree_of(path, arrays, header(path, metadata))


def header(path: str | Path, metadata: dict[str, str]) -> dict[str, Any]:
    """The header of a file that gpulstm wrote; empty for other files. Raises FormatError for a damaged header."""
    if HEADER not in metadata:
        return {}
    try:
        found = json.loads(metadata[HEADER])
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: expected a gpulstm {KIND} or model, got one whose header is damaged: {error}"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise FormatError(f"{path}: expected a gpulstm {KIND} or model, got one whose header names no kind")
    return found


def tree_of(path: str | Path, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> Any:
    """The contents of a file, from its arrays and header; raises FormatError unless every array is used once."""
    kind = header.get("kind")
    if (kind, header.get("version")) != (KIND, VERSION):
        got = f"a {kind!r} of version {header['version']!r}" if "version" in header else f"a {kind!r}"
        got = got if header else "a file without gpulstm's header"
        raise FormatError(f"{path}: expected a gpulstm {KIND} of version {VERSION}, got {got}")
    left = dict(arrays)
    try:
        tree = _unpack(header["tree"], left, 0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = error if isinstance(error, FormatError) else f"{type(error).__name__} {error}"
        raise FormatError(f"{path}: expected a gpulstm {KIND}, got one that is damaged: {why}") from error
    if left:
        raise FormatError(f"{path}: expected arrays that the header names, got others too: {', '.join(list(left)[:5])}")
    return tree


def to_host(tree: Any) -> Any:
    """The same structure with copies of its arrays and Tensors on the host."""

    def copy(array: Array) -> np.ndarray:
        return np.array(backend_of(array).to_numpy(array), order="C")

    return _mapped(tree, copy)


def on_device(tree: Any, backend: Backend) -> Any:
    """The same structure with its arrays and Tensors on the device of the backend."""
    return _mapped(tree, backend.asarray)


def detached(tree: Any) -> Any:
    """The same structure with its Tensors detached from the tape."""
    return _mapped(tree, lambda array: array)


def _mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with ``change`` applied to its arrays and to the data of its Tensors."""
    if isinstance(tree, dict):
        return {key: _mapped(value, change) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        values = [_mapped(value, change) for value in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    if isinstance(tree, Tensor):
        return Tensor(change(tree.data))
    if isinstance(tree, np.generic):
        return tree.item()
    return tree if isinstance(tree, _PLAIN) else change(tree)


def _pack(tree: Any, place: tuple[str, ...], arrays: dict[str, Array]) -> Any:
    """The structure as a value that JSON can hold; its arrays go into ``arrays``.

    A dict becomes {"dict": [[key, value], ...]}, a State likewise {"state": ...}, a list {"list": [...]}, a tuple
    {"tuple": [...]}, an array {"array": name} and a Tensor {"tensor": name}.
    """
    where = "/".join(place) or "x"
    if len(place) > DEEPEST:
        raise FormatError(
            f"{where:.40}...: expected at most {DEEPEST} nested levels, got more; does a list or dict contain itself?"
        )
    if isinstance(tree, dict):
        pairs = [[_pack_key(key, where), _pack(value, (*place, str(key)), arrays)] for key, value in tree.items()]
        return {"state" if isinstance(tree, State) else "dict": pairs}
    if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
        values = [_pack(value, (*place, str(k)), arrays) for k, value in enumerate(tree)]
        return {"tuple" if isinstance(tree, tuple) else "list": values}
    if isinstance(tree, np.generic):
        tree = tree.item()
    if isinstance(tree, _PLAIN):
        return tree
    try:
        data = raw(tree)
        backend_of(data)
    except DTypeError as error:
        if hasattr(tree, "dtype"):
            raise renamed(error, where) from error
        want = "a dict, list, tuple, array, Tensor, number, string or None"
        raise DTypeError(f"{where}: expected {want}, or an object with state_dict, got {type_name(tree)}") from None
    name = first = "/" + "/".join(place)
    while name in arrays:  # the key "a/b" and the keys "a", "b" give the same name
        name = f"{first}#{len(arrays)}"
    arrays[name] = data
    return {"tensor" if isinstance(tree, Tensor) else "array": name}


def _pack_key(key: Any, where: str) -> Any:
    if isinstance(key, tuple) and not hasattr(key, "_fields"):
        return {"tuple": [_pack_key(part, where) for part in key]}
    key = key.item() if isinstance(key, np.generic) else key
    if not isinstance(key, _PLAIN):
        raise DTypeError(f"{where}: expected keys that are strings, numbers, None or tuples, got {key!r:.60}")
    return key


def _unpack(node: Any, arrays: dict[str, np.ndarray], depth: int) -> Any:
    """Undo ``_pack``; every array that is used is removed from ``arrays``."""
    if isinstance(node, _PLAIN):
        return node
    if depth > DEEPEST:
        raise FormatError(f"expected at most {DEEPEST} nested levels, got more")
    ((kind, content),) = node.items()
    if kind in ("array", "tensor"):
        if content not in arrays:
            raise FormatError(f"expected each array once, got none left for {content!r:.60}")
        array = arrays.pop(content)
        return Tensor(array) if kind == "tensor" else array
    if kind not in ("dict", "state", "list", "tuple") or not isinstance(content, list):
        raise FormatError(f"expected a dict, list, tuple, array or tensor, got {kind!r:.60}")
    if kind in ("list", "tuple"):
        values = [_unpack(value, arrays, depth + 1) for value in content]
        return tuple(values) if kind == "tuple" else values
    made: dict[Any, Any] = State() if kind == "state" else {}
    for key, value in content:
        key = _unpack(key, {}, depth + 1)
        if key in made:
            raise FormatError(f"expected each key once, got {key!r:.60} again")
        made[key] = _unpack(value, arrays, depth + 1)
    return made
