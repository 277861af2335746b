"""The text lab's model in one file, with its vocabulary and configuration; a run's checkpoint is read alike."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.backend import Device, backend_of
from gpulstm.errors import FormatError, ShapeError
from gpulstm.labs import model_file
from gpulstm.labs.text_corpus import vocabulary_from
from gpulstm.labs.text_model import TextModel

KIND = "text model"


def save_model(path: str | Path, model: TextModel, facts: Mapping[str, Any] | None = None) -> None:
    """Write the model, its vocabulary and configuration to one safetensors file, atomically; raises OSError.

    ``facts`` about its making (JSON values) go into the header too.
    """
    model_file.save(path, KIND, model.state_dict(), description(model), facts or {})


def description(model: TextModel) -> dict[str, Any]:
    """What is needed beside the arrays to make the model again, in JSON values."""
    return {"config": model.config, "level": model.vocabulary.level, "vocabulary": model.vocabulary.to_json()}


def load_model(path: str | Path, device: str | Device = "auto") -> TextModel:
    """The model in a file that ``save_model`` wrote, or the best one so far in a run's checkpoint.

    It is in evaluation mode. Nothing in the file can run code. Raises FormatError when it is no such file, is
    cut short, holds numbers that are not finite, or when its header tells of other sizes than its arrays
    have; OSError when it cannot be read.
    """
    arrays, header = model_file.load(path, KIND)
    try:
        vocabulary = vocabulary_from(header["level"], header["vocabulary"])
        config = {name: header["config"][name] for name in ("embedding", "hidden", "layers", "dropout")}
        dtype = _check_arrays(arrays, len(vocabulary), **config)
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise FormatError(f"{path}: expected a gpulstm {KIND}: {what}") from error
    model = TextModel(vocabulary, **config, device=device, dtype=dtype)
    model.load_state_dict(arrays)
    model.eval()
    return model


def model_facts(path: str | Path) -> dict[str, Any]:
    """The facts about its making in a model's file or a checkpoint. Raises FormatError and OSError."""
    return model_file.facts(path, KIND)


def model_digest(model: TextModel) -> str:
    """The SHA-256 of all that a model is: its description and its parameters."""
    known = hashlib.sha256(json.dumps(description(model)).encode())
    for name, array in model.state_dict().items():
        known.update(name.encode() + np.ascontiguousarray(backend_of(array).to_numpy(array)).tobytes())
    return known.hexdigest()


def _check_arrays(
    arrays: Mapping[str, np.ndarray], V: int, embedding: int, hidden: int, layers: int, dropout: float
) -> Any:
    """Hold the sizes in the header against the arrays, before anything is made by them; return the dtype."""
    for name, size in (("embedding", embedding), ("hidden", hidden), ("layers", layers)):
        if type(size) is not int or size < 1:
            raise ShapeError(f"{name}: expected an integer from 1 up, got {size!r}")
    if not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise ShapeError(f"dropout: expected a number from 0 to 1, got {dropout!r}")
    if 4 * layers + 3 != len(arrays):  # also keeps a huge number of layers from being listed below
        raise ShapeError(f"arrays: expected {4 * layers + 3} for {layers} layers, got {len(arrays)}")
    want = {"embedding.weight": (V, embedding), "linear.weight": (V, hidden), "linear.bias": (V,)}
    for k in range(layers):
        inputs = embedding if k == 0 else hidden
        want |= {f"lstm.weight_ih_l{k}": (4 * hidden, inputs), f"lstm.weight_hh_l{k}": (4 * hidden, hidden)}
        want |= {f"lstm.bias_ih_l{k}": (4 * hidden,), f"lstm.bias_hh_l{k}": (4 * hidden,)}
    for name, shape in want.items():
        if name not in arrays or arrays[name].shape != shape:
            got = arrays[name].shape if name in arrays else "none"
            raise ShapeError(f"{name}: expected {shape}, got {got}")
        if not np.isfinite(arrays[name]).all():
            raise ShapeError(f"{name}: expected finite numbers, got others")
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) != 1:
        raise ShapeError(f"arrays: expected one dtype, got {', '.join(sorted(str(dtype) for dtype in dtypes))}")
    return dtypes.pop()
