"""Converts torch's tensors to gpulstm's arrays and back; both share their memory."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from gpulstm.backend import Array, device
from gpulstm.dtypes import as_dtype
from gpulstm.errors import DeviceError


def as_array(tensor: torch.Tensor) -> Array:
    """The tensor's memory as a NumPy or CuPy array. Raises DeviceError for a device other than cpu and cuda."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    narrow = tensor.dtype is torch.bfloat16  # which NumPy does not have
    bits = tensor.view(torch.int16) if narrow else tensor
    if tensor.is_cpu:
        array = bits.numpy()
    elif tensor.is_cuda:
        array = device(f"cuda:{tensor.device.index}").backend.xp.from_dlpack(bits)
    else:
        raise DeviceError(f"tensor: expected one on cpu or cuda, got {tensor.device}")
    return array.view(as_dtype("bfloat16")) if narrow else array


def as_tensor(array: Array) -> torch.Tensor:
    """The array's memory as a tensor; a copy if torch does not support such memory."""
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
    """A context in which CuPy uses the tensor's GPU and torch's current stream on it."""
    if tensor.device.type != "cuda":
        return nullcontext()
    number: Any = tensor.device.index
    xp = device(f"cuda:{number}").backend.xp
    return xp.cuda.ExternalStream(torch.cuda.current_stream(number).cuda_stream, number)
