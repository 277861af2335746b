"""The ONNX operators by which a file may compute weights from its arrays, in NumPy.

Exporters slice, transpose and join the weights of recurrent operators with them. Each follows the definition of every
version of its operator, and reserves memory before it allocates it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.onnx.call import Call
from gpulstm.io.onnx.moves import MOVES
from gpulstm.io.onnx.proto import tensor_array


def _constant(call: Call) -> Any:
    """The value of the one attribute; proto.attributes has checked its type against its name."""
    if len(call.attributes) != 1:
        raise FormatError(f"{call.where}: expected one value, got {', '.join(call.attributes) or 'none'}")
    ((name, value),) = call.attributes.items()
    if name == "value":
        return tensor_array(value, call.where, call.source)
    if name in ("sparse_value", "value_string", "value_strings"):
        raise FormatError(f"{call.where}: expected an array of numbers, got {name}")
    call.reserve(8 * len(value) if isinstance(value, list) else 8)
    return np.array(value, np.float32 if "float" in name else np.int64)


def _constant_of_shape(call: Call) -> Any:
    value = np.zeros(1, np.float32)
    if "value" in call.attributes:
        value = tensor_array(call.attributes["value"], call.where, call.source)
    if value.size != 1:
        raise FormatError(f"{call.where}: expected a value of one element, got {value.shape}")
    return call.own(np.broadcast_to(value.reshape(()), call.shape(call.option("shape", 0, 0))))


def _concat(call: Call) -> Any:
    axis = call.attributes.get("axis", 1 if call.version < 4 else None)
    if axis is None or any(each is None or each.dtype != call.inputs[0].dtype for each in call.inputs):
        raise FormatError(f"{call.where}: expected an axis and arrays of the same type, got none or different types")
    call.reserve(sum(each.nbytes for each in call.inputs))
    return np.concatenate(call.inputs, call.axis(axis, call.inputs[0].ndim))


def _dimensions(call: Call) -> Any:
    sizes = call.inputs[0].shape
    return np.array(sizes[call.attributes.get("start", 0) : call.attributes.get("end", len(sizes))], np.int64)


def _arithmetic(function: Callable[..., Any]) -> Callable[[Call], Any]:
    def compute(call: Call) -> Any:
        first = call.inputs[0]
        if any(each is None or each.dtype != first.dtype for each in call.inputs):
            raise FormatError(f"{call.where}: expected arrays of the same type, got different types")
        if call.version < 7 and any(each.shape != first.shape for each in call.inputs):
            want = "expected arrays of the same shape, as before version 7"
            raise FormatError(f"{call.where}: {want}, got different shapes")
        shape = np.broadcast_shapes(*(each.shape for each in call.inputs))
        call.reserve(math.prod(shape) * first.dtype.itemsize)
        return np.asarray(function(*call.inputs)).astype(first.dtype, copy=False)

    return compute


def _divide(x: Any, y: Any) -> Any:
    if x.dtype.kind not in "iu":
        return x / y
    if not np.all(y):
        raise ValueError("a divisor is 0")
    quotient = np.abs(x) // np.abs(y)  # ONNX rounds towards zero
    return np.where((x < 0) != (y < 0), -quotient, quotient)


def _dequantize(call: Call) -> Any:
    x, scale, zero = call.inputs[0], call.inputs[1], call.input(2)
    if call.attributes.get("block_size") or call.attributes.get("output_dtype"):
        raise FormatError(
            f"{call.where}: expected one scale, or one for each place of an axis, got blocks or another type"
        )
    if x.dtype.kind not in "iu" or scale.dtype.kind in "iub" or (zero is not None and zero.size not in (1, scale.size)):
        got = f"{x.dtype}, {scale.dtype}"
        raise FormatError(f"{call.where}: expected integers, a scale of floats and its zero points, got {got}")
    shape = [1] * x.ndim
    if scale.size != 1:
        shape[call.axis(call.attributes.get("axis", 1), x.ndim)] = scale.size
    wide = np.int32 if x.dtype.itemsize < 4 else np.int64
    zero = np.zeros(1, wide) if zero is None else zero.astype(wide)
    zero = zero.reshape(shape if zero.size != 1 else ())
    call.reserve(x.size * scale.dtype.itemsize)
    return (x.astype(wide) - zero).astype(scale.dtype) * scale.reshape(shape if scale.size != 1 else ())


# For each operator its attributes with the fields of their types, and the function that computes it.
OPERATORS: dict[str, tuple[dict[str, str], Callable[[Call], Any]]] = MOVES | {
    "Constant": (
        {
            "value": "t", "value_float": "f", "value_floats": "floats", "value_int": "i", "value_ints": "ints",
            "value_string": "s", "value_strings": "strings", "sparse_value": "sparse_tensor",
        },
        _constant,
    ),
    "ConstantOfShape": ({"value": "t"}, _constant_of_shape),
    "Concat": ({"axis": "i"}, _concat),
    "Shape": ({"start": "i", "end": "i"}, _dimensions),
    "Neg": ({}, _arithmetic(np.negative)),
    "Add": ({}, _arithmetic(np.add)),
    "Sub": ({}, _arithmetic(np.subtract)),
    "Mul": ({}, _arithmetic(np.multiply)),
    "Div": ({}, _arithmetic(_divide)),
    "DequantizeLinear": ({"axis": "i", "block_size": "i", "output_dtype": "i"}, _dequantize),
}  # fmt: skip
