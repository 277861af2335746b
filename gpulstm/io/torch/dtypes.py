"""PyTorch's element types and storage classes, and the NumPy types for them."""

import importlib
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError

# Storage classes with an element type.
STORAGES = {
    "torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool", "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
}  # fmt: skip
# Storage classes of tensors that are refused later, when the message can name the entry; a type of the same size.
QUANTIZED = {
    "torch.QInt8Storage": "int8", "torch.QUInt8Storage": "uint8", "torch.QInt32Storage": "int32",
    "torch.QUInt4x2Storage": "uint8", "torch.QUInt2x4Storage": "uint8",
}  # fmt: skip
# A storage of bytes; the element type comes with its tensors.
UNTYPED = "torch.storage.UntypedStorage"
_FLOAT8 = ("float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e8m0fnu")
ML_DTYPES = ("bfloat16", *_FLOAT8)
# Element types that are written with UNTYPED.
NEW = ("uint16", "uint32", "uint64", *_FLOAT8)
_WITHOUT_NUMPY = (
    "complex32", "float4_e2m1fn_x2", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "qint8", "quint8", "qint32",
    "quint4x2", "quint2x4", *(f"{sign}int{n}" for sign in ("", "u") for n in range(1, 8)),
)  # fmt: skip
NAMES = {f"torch.{name}": name for name in (*STORAGES.values(), *NEW, *_WITHOUT_NUMPY)}


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy type for PyTorch's name. Raises DTypeError if there is none."""
    if name in _WITHOUT_NUMPY:
        raise DTypeError(f"expected element types that NumPy knows, got PyTorch's {name}")
    if name not in ML_DTYPES:
        return np.dtype(name)
    try:
        return np.dtype(getattr(importlib.import_module("ml_dtypes"), name))
    except (ImportError, AttributeError) as error:
        raise DTypeError(f"dtype {name!r} needs the package ml_dtypes (pip install -U ml_dtypes)") from error


def check_there(name: str) -> None:
    """Raises DTypeError if the type needs the package ml_dtypes and that is missing."""
    if name in ML_DTYPES:
        numpy_dtype(name)


def as_value(text: str) -> Any:
    """How ``torch.float32`` is read as a value: as NumPy's type, or as a string for types that NumPy lacks."""
    try:
        return numpy_dtype(NAMES[text])
    except DTypeError:
        return text
