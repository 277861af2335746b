"""Files: arrays in safetensors files, and weights from and for PyTorch, Keras and ONNX.

``gl.save`` and ``gl.load`` save and load models and whole runs. Use this module for named arrays, and for the files of
other libraries:

>>> gl.io.save_arrays("a.safetensors", {"x": np.ones(2)}, {"unit": "m"})
>>> arrays, metadata = gl.io.load_arrays("a.safetensors")
>>> arrays["x"], metadata
(array([1., 1.]), {'unit': 'm'})

``gl.io.torch`` reads and writes PyTorch's files, ``gl.io.keras`` reads those of Keras, and ``gl.io.onnx`` reads and
writes ONNX models. They are imported at their first use. The first two need neither PyTorch nor Keras; ``gl.io.onnx``
needs the package onnx. Loading a file never runs code from it.
"""

import importlib
from typing import Any

from gpulstm.io.files import atomic_write, check_writable, load_arrays, save_arrays

_LATER = ("keras", "onnx", "torch")


def __getattr__(name: str) -> Any:
    """Import the module of another library's format at its first use."""
    if name not in _LATER:
        raise AttributeError(f"module 'gpulstm.io' has no attribute {name!r}")
    return importlib.import_module(f"gpulstm.io.{name}")


__all__ = ["atomic_write", "check_writable", "keras", "load_arrays", "onnx", "save_arrays", "torch"]
