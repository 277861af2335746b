"""The text lab's model in one file, with its vocabulary and configuration; also loads models from checkpoints."""

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

    The header also stores ``facts`` about the training (JSON values).
    """
    model_file.save(path, KIND, model.state_dict(), description(model), facts or {})


def description(model: TextModel) -> dict[str, Any]:
    """Return everything besides the arrays that loading needs, as JSON values."""
    return {"config": model.config, "level": model.vocabulary.level, "vocabulary": model.vocabulary.to_json()}


def load_model(path: str | Path, device: str | Device = "auto") -> TextModel:
    """Load the model that ``save_model`` wrote, or the best model so far from a checkpoint, in evaluation mode.

    Loading never runs code from the file. Raises FormatError for another file, for a file that is cut short, for
    numbers that are not finite, and if the sizes in the header do not match the arrays; OSError if the file cannot be
    read.
    """
    arrays, header = model_file.load(path, KIND)
    try:
        vocabulary = vocabulary_from(header["level"], header["vocabulary"])
        config = {name: header["config"][name] for name in ("embedding", "hidden", "layers", "dropout")}
        dtype = _check_arrays(arrays, len(vocabulary), **config)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise FormatError(f"{path}: expected a gpulstm {KIND}, got a damaged one: {what}") from error
    model = TextModel(vocabulary, **config, device=device, dtype=dtype)
    model.load_state_dict(arrays)
    model.eval()
    return model


def model_facts(path: str | Path) -> dict[str, Any]:
    """Return the facts about the training from a model file or a checkpoint. Raises FormatError and OSError."""
    return model_file.facts(path, KIND)


def model_digest(model: TextModel) -> str:
    """Return the SHA-256 of a model's description and parameters."""
    known = hashlib.sha256(json.dumps(description(model)).encode())
    for name, array in model.state_dict().items():
        known.update(name.encode() + np.ascontiguousarray(backend_of(array).to_numpy(array)).tobytes())
    return known.hexdigest()


def _check_arrays(
    arrays: Mapping[str, np.ndarray], V: int, embedding: int, hidden: int, layers: int, dropout: float
) -> Any:
    """Compare the sizes in the header with the arrays, before allocating by them; return the dtype."""
    for name, size in (("embedding", embedding), ("hidden", hidden), ("layers", layers)):
        if type(size) is not int or size < 1:
            raise ShapeError(f"{name}: expected an integer from 1 up, got {size!r}")
    if not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise ShapeError(f"dropout: expected a number from 0 to 1, got {dropout!r}")
    if 4 * layers + 3 != len(arrays):  # also keeps the loop below short for a huge number of layers
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
            raise ShapeError(f"{name}: expected finite numbers, got NaN or infinity")
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) != 1:
        raise ShapeError(f"arrays: expected one dtype, got {', '.join(sorted(str(dtype) for dtype in dtypes))}")
    return dtypes.pop()
