"""A lab's model in one safetensors file: the arrays, and a JSON header with everything else that loading needs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.train import checkpoint

# The only metadata key: the order in which several keys are written changes from run to run.
HEADER = "gpulstm"
VERSION = 1
Arrays = Mapping[str, np.ndarray]


def save(path: str | Path, kind: str, arrays: Arrays, description: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write a model of this kind atomically; ``description`` and ``facts`` (about its training) are JSON values.

    Raises OSError if the file cannot be written.
    """
    header = {"kind": kind, "version": VERSION, **description, "facts": dict(facts)}
    save_arrays(path, dict(arrays), {HEADER: json.dumps(header)})


def load(path: str | Path, kind: str) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the header of a model of this kind, or of the best model so far in a checkpoint.

    Loading never runs code from the file. Raises FormatError for any other file, OSError if it cannot be read.
    """
    arrays, metadata = load_arrays(path)
    try:
        header = json.loads(metadata.get(HEADER, "null"))
    except (ValueError, RecursionError):
        header = None
    found = header.get("kind") if isinstance(header, dict) else None
    if not isinstance(header, dict) or found != kind:
        kept = _in_checkpoint(path, kind)
        if kept is None:
            raise FormatError(f"{path}: expected a gpulstm {kind}, got {found or 'another safetensors file'}")
        return kept
    if header.get("version") != VERSION:
        raise FormatError(f"{path}: expected version {VERSION} of a gpulstm {kind}, got {header.get('version')!r}")
    return arrays, header


def facts(path: str | Path, kind: str) -> dict[str, Any]:
    """Return the facts about the training from a model file or a checkpoint. Raises FormatError and OSError."""
    found = load(path, kind)[1].get("facts")
    return found if isinstance(found, dict) else {}


def _in_checkpoint(path: str | Path, kind: str) -> tuple[Arrays, dict[str, Any]] | None:
    """Return the best model so far from a checkpoint of this kind, or None for any other file.

    The checkpoint stores the model's description under the name of the kind.
    """
    try:
        tree = checkpoint.load(path)
        header, run = tree["about"][kind], tree["run"]
        arrays = tree["model"] if run["best_model"] is None else run["best_model"]
        of_run = {name: fact for name, fact in tree["about"].items() if name not in (kind, "plot", "picture")}
        made = {**of_run, **tree["notes"], "step": run["step"], "validation_loss": run["best"]}
    except (FormatError, KeyError, TypeError):
        return None
    return arrays, {**header, "facts": made}
