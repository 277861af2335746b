"""A lab's model in one safetensors file: its arrays, and a JSON header with all that is needed to make it again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.train import checkpoint

# The one key of the file's metadata: several would be written in an order that changes from run to run.
HEADER = "gpulstm"
VERSION = 1
Arrays = Mapping[str, np.ndarray]


def save(path: str | Path, kind: str, arrays: Arrays, description: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write a model of that kind, atomically; ``description`` and ``facts`` (about its making) are JSON values.

    Raises OSError where the file cannot be written.
    """
    header = {"kind": kind, "version": VERSION, **description, "facts": dict(facts)}
    save_arrays(path, dict(arrays), {HEADER: json.dumps(header)})


def load(path: str | Path, kind: str) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the header of a model of that kind, or of the best one so far in the checkpoint of its run.

    Nothing in the file can run code. Raises FormatError for any other file, OSError where it cannot be read.
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
            raise FormatError(
                f"{path}: expected a gpulstm {kind}, got {found or 'a safetensors file of something else'}"
            )
        return kept
    if header.get("version") != VERSION:
        raise FormatError(f"{path}: expected version {VERSION} of a gpulstm {kind}, got {header.get('version')!r}")
    return arrays, header


def facts(path: str | Path, kind: str) -> dict[str, Any]:
    """The facts about its making in a model's file or a checkpoint. Raises FormatError and OSError."""
    found = load(path, kind)[1].get("facts")
    return found if isinstance(found, dict) else {}


def _in_checkpoint(path: str | Path, kind: str) -> tuple[Arrays, dict[str, Any]] | None:
    """The best model so far of a checkpoint, which has the description under the kind; None for any other file."""
    try:
        tree = checkpoint.load(path)
        header, run = tree["about"][kind], tree["run"]
        arrays = tree["model"] if run["best_model"] is None else run["best_model"]
        of_run = {name: fact for name, fact in tree["about"].items() if name not in (kind, "plot", "picture")}
        made = {**of_run, **tree["notes"], "step": run["step"], "validation_loss": run["best"]}
    except (FormatError, KeyError, TypeError):
        return None
    return arrays, {**header, "facts": made}
