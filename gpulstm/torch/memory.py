"""One memory for torch's tensors and the arrays that gpulstm computes with, both ways."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from gpulstm.backend import Array, device
from gpulstm.dtypes import as_dtype
from gpulstm.errors import DeviceError


def as_array(tensor: torch.Tensor) -> Array:
    """The NumPy or CuPy array that has the tensor's memory. Raises DeviceError for a device that is neither's."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    narrow = tensor.dtype is torch.bfloat16  # which NumPy does not know
    bits = tensor.view(torch.int16) if narrow else tensor
    if tensor.is_cpu:
        array = bits.numpy()
    elif tensor.is_cuda:
        array = device(f"cuda:{tensor.device.index}").backend.xp.from_dlpack(bits)
    else:
        raise DeviceError(f"tensor: expected one on cpu or cuda, got {tensor.device}")
    return array.view(as_dtype("bfloat16")) if narrow else array


def as_tensor(array: Array) -> torch.Tensor:
    """The tensor that has the array's memory; of a copy where torch takes no such memory."""
    wide = array.dtype.itemsize != 2 or array.dtype.name != "bfloat16"
    if not wide:
        array = array.view(np.int16)
    if not isinstance(array, np.ndarray):
        tensor = torch.from_dlpack(array)
    else:
        flags = array.flags
        plain = flags.writeable and (flags.c_contiguous or min(array.strides) >= 0)
        tensor = torch.from_numpy(array if plain else array.copy())
    return tensor if wide else tensor.view(torch.bfloat16)


def current_stream(tensor: torch.Tensor) -> AbstractContextManager:
    """While it lasts, CuPy works on the tensor's GPU and on the stream that torch works on there."""
    if tensor.device.type != "cuda":
        return nullcontext()
    number: Any = tensor.device.index
    xp = device(f"cuda:{number}").backend.xp
    return xp.cuda.ExternalStream(torch.cuda.current_stream(number).cuda_stream, number)
