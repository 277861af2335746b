"""Files: models and checkpoints in safetensors; weights from and for PyTorch, Keras and ONNX.

``gl.io.torch``, ``gl.io.keras`` and ``gl.io.onnx`` are imported at their first use. The first two need neither
PyTorch nor Keras; the third needs the package onnx.
"""

import importlib
from typing import Any

from gpulstm.io.files import atomic_write, check_writable, load_arrays, save_arrays

_LATER = ("keras", "onnx", "torch")


def __getattr__(name: str) -> Any:
    """The formats of other libraries."""
    if name not in _LATER:
        raise AttributeError(f"module 'gpulstm.io' has no attribute {name!r}")
    return importlib.import_module(f"gpulstm.io.{name}")


__all__ = ["atomic_write", "check_writable", "keras", "load_arrays", "onnx", "save_arrays", "torch"]
