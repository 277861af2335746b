"""gl.save and gl.load: a model, or the state of a whole run, in one file that cannot run code."""

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm import random
from gpulstm.backend import backend_of
from gpulstm.errors import DTypeError, FormatError, GpulstmError
from gpulstm.io.files import as_path, load_arrays, save_arrays
from gpulstm.io.tree import DEEPEST, HEADER, KIND, State, header, to_host, tree_of
from gpulstm.io.tree import save as save_tree
from gpulstm.nn import Module
from gpulstm.tape import Tensor, raw

MODEL = {"kind": "model", "version": 1}


def save(path: str | Path, x: Any) -> None:
    """Write a model, or a dict of models, optimisers and plain values, to one safetensors file.

    The file of a module holds the arrays of its ``state_dict`` under their names, which any safetensors reader can
    read. So does the file of a dict of arrays. Other dicts, lists and tuples may be nested and may contain objects with
    ``state_dict`` and ``load_state_dict`` (modules, optimisers, schedules, data sets), numpy.random.Generator, Tensors,
    arrays of any library and shape, numbers, strings and None. Keys are strings, numbers, None or tuples of them.
    Infinite and NaN values are saved unchanged. Tensors are loaded without a gradient, arrays as NumPy arrays.

    The file is replaced as a whole or not at all. Raises DTypeError, naming the place, for values that cannot be saved;
    FormatError for more than 100 nested levels; OSError if the file cannot be written.

    >>> model = gl.LSTM(3, 4)
    >>> gl.save("model.safetensors", model)
    >>> gl.save("run.safetensors", {"model": model, "optimizer": gl.Adam(model.parameters()), "epoch": 3})
    """
    path = as_path(path, x)
    if isinstance(x, Module):
        save_arrays(path, x.state_dict(), {HEADER: json.dumps(MODEL)})
    elif isinstance(x, dict) and x and all(isinstance(key, str) and _is_array(value) for key, value in x.items()):
        save_arrays(path, {key: raw(value) for key, value in x.items()})
    else:
        save_tree(path, _states(x, ()))


def load(path: str | Path, x: Any = None) -> Any:
    """Read a file that ``gl.save``, a Trainer or another writer of safetensors wrote, without running code from it.

    ``gl.load(path, model)`` loads the weights of a **module** and returns it. The file may be that of a module, of a
    dict or a Trainer's checkpoint with the weights under "model", of the text lab, or any safetensors file with the
    module's names. A Trainer's checkpoint may hold the best model of the run too; then that one is loaded, as at the
    end of ``fit``, and ``gl.load(path)["model"]`` is the last one.

    ``gl.load(path, {"model": model, ...})`` loads the states of the objects in a **dict** (or list or tuple). It
    returns the dict in the file with the objects in place of their states; plain values come from the file. Every
    object must have a state in the file, and every state an object in x. If one state does not fit, none is loaded.

    ``gl.load(path)`` returns the file's contents, with states as dicts of NumPy arrays.

    Raises FormatError for a file that is damaged, has another format, or does not match x; the errors of the objects'
    ``load_state_dict``, with the path in front; OSError if the file cannot be read.

    >>> gl.save("run.safetensors", {"model": gl.LSTM(3, 4), "epoch": 3})
    >>> gl.load("run.safetensors", gl.LSTM(3, 4))
    LSTM(3, 4)
    >>> gl.load("run.safetensors", {"model": gl.LSTM(3, 4)})["epoch"]
    3
    """
    path = as_path(path, x)
    if x is not None and not _has_state(x) and not isinstance(x, dict | list | tuple):
        got = f"the class {x.__name__}" if isinstance(x, type) else f"a {type(x).__name__}"
        raise DTypeError(f"x: expected a model, another object with load_state_dict, or a dict of them, got {got}")
    arrays, metadata = load_arrays(path)
    told = header(path, metadata)
    tree = tree_of(path, arrays, told) if told.get("kind") == KIND else arrays
    if x is None:
        return tree
    if isinstance(x, Module):
        tree = _model_in(path, tree, x)
    pairs: list[_Pair] = []
    answer = _matched(path, tree, x, (), pairs)
    _load_all(pairs)
    return answer


def _is_array(value: Any) -> bool:
    try:
        backend_of(raw(value))
    except GpulstmError:
        return False
    return hasattr(value, "dtype") and not isinstance(value, np.generic | Tensor)


def _has_state(x: Any) -> bool:
    """Whether x is an object whose state can be saved and loaded."""
    if isinstance(x, np.random.Generator):
        return True
    return not isinstance(x, type) and hasattr(x, "state_dict") and hasattr(x, "load_state_dict")


def _state_of(x: Any) -> Any:
    return random.generator_state(x) if isinstance(x, np.random.Generator) else x.state_dict()


def _states(x: Any, above: tuple[int, ...]) -> Any:
    """The same nested dicts, lists and tuples, with states in place of the objects."""
    if id(x) in above:
        raise FormatError(
            f"x: expected dicts and lists that do not contain themselves, got a {type(x).__name__} that does"
        )
    above = (*above, id(x))
    if len(above) > DEEPEST + 1:
        raise FormatError(f"x: expected at most {DEEPEST} nested levels, got more")
    if _has_state(x):
        state = _state_of(x)
        if not isinstance(state, dict):
            raise DTypeError(
                f"x: expected state_dict() to return a dict, got {type(state).__name__} from a {type(x).__name__}"
            )
        return State(state)
    if isinstance(x, dict):
        return {key: _states(value, above) for key, value in x.items()}
    if isinstance(x, list | tuple) and not hasattr(x, "_fields"):
        return type(x)(_states(value, above) for value in x)
    return x


def _model_in(path: str | Path, tree: Any, model: Module) -> Any:
    """The part of a file's contents that is the model's state."""
    if not isinstance(tree, dict):
        raise FormatError(f"{path}: expected a model or a dict with a model, got a {type(tree).__name__}")
    if not isinstance(tree.get("model"), dict):
        if isinstance(tree, State) or all(isinstance(value, np.ndarray | Tensor) for value in tree.values()):
            return State(tree)
        raise FormatError(f"{path}: expected a model or a dict with 'model', got one with {', '.join(map(repr, tree))}")
    run = tree.get("run")
    best = run.get("best_model") if isinstance(run, dict) else None
    return State(best if isinstance(best, dict) else tree["model"])


_Pair = tuple[str, Any, Any]  # its place, an object, and the state to load into it


def _matched(path: str | Path, saved: Any, x: Any, place: tuple[str, ...], pairs: list[_Pair]) -> Any:
    """The file's contents with the objects of x in place of their states; ``pairs`` collects both."""
    where = f"{path}: {'/'.join(place) or 'x'}"
    if _has_state(x):
        if not isinstance(saved, dict):
            raise FormatError(f"{where}: expected the state of a {type(x).__name__}, got a {type(saved).__name__}")
        pairs.append((where, x, saved))
        return x
    if isinstance(x, dict) and isinstance(saved, dict) and not isinstance(saved, State):
        _check_keys(where, saved, x)
        given = {key: (*place, str(key)) for key in x}
        return {
            key: _matched(path, value, x[key], given[key], pairs) if key in given else value
            for key, value in saved.items()
        }
    if _holds_objects(x) and isinstance(x, list | tuple) and isinstance(saved, list | tuple) and len(x) == len(saved):
        parts = enumerate(zip(saved, x, strict=True))
        return type(x)([_matched(path, a, b, (*place, str(k)), pairs) for k, (a, b) in parts])
    if _holds_objects(x):
        raise FormatError(f"{where}: expected {_described(x)}, got {_described(saved)}")
    if _holds_objects(saved):
        raise FormatError(
            f"{where}: expected an object for each state in {_described(saved)}, got {_described(x)}; "
            "gl.load(path) returns states as dicts"
        )
    return saved


def _check_keys(where: str, saved: dict[Any, Any], x: dict[Any, Any]) -> None:
    """Raises FormatError for keys that the file lacks, and for states in the file that x has no key for."""
    if absent := [key for key in x if key not in saved]:
        raise FormatError(f"{where}: expected {_listed(absent)}, got a file that has {_listed(saved)}")
    if unused := [key for key, value in saved.items() if key not in x and _holds_objects(value)]:
        raise FormatError(
            f"{where}: expected an object for each state in the file, got none for {_listed(unused)}; "
            "gl.load(path, model) loads the model alone, gl.load(path) returns states as dicts"
        )


def _holds_objects(x: Any) -> bool:
    """Whether nested dicts, lists and tuples contain objects with a state, or their states."""
    if isinstance(x, dict | list | tuple) and not isinstance(x, State):
        return any(map(_holds_objects, x.values() if isinstance(x, dict) else x))
    return isinstance(x, State) or _has_state(x)


def _load_all(pairs: list[_Pair]) -> None:
    """Load every object's state; if one fails, restore the objects before it."""
    undo: list[Callable[[], Any]] = []
    try:
        for where, x, state in pairs:
            if len(pairs) > 1:
                undo.append(functools.partial(_take, x, to_host(_state_of(x))))
            try:
                _take(x, state)
            except GpulstmError as error:
                raise type(error)(f"{where}: {error}") from error
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                got = f"one that it cannot load: {type(error).__name__} {error}"
                raise FormatError(f"{where}: expected the state of a {type(x).__name__}, got {got}") from error
    except BaseException:
        for put_back in undo:
            with contextlib.suppress(Exception):  # the first error is the one to report
                put_back()
        raise


def _take(x: Any, state: Any) -> None:
    if isinstance(x, np.random.Generator):
        random.set_generator_state(x, state)
    else:
        x.load_state_dict(state)


def _listed(keys: Any) -> str:
    return ", ".join(map(str, keys))


def _described(x: Any) -> str:
    if isinstance(x, list | tuple):
        return f"a {type(x).__name__} of {len(x)}"
    if isinstance(x, dict):
        return "a state" if isinstance(x, State) else f"a dict with {_listed(x) or 'nothing'}"
    return "None" if x is None else f"a {type(x).__name__}"
