"""PyTorch's functions that rebuild tensors and parameters, in all versions, by their names."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.io.torch import dtypes
from gpulstm.io.torch.tensors import Tensors, without_dtype
from gpulstm.io.torch.unread import Refused, Unread

_SPARSE = "a sparse tensor (in PyTorch: save x.to_dense())"
_NESTED = "a nested tensor (in PyTorch: save x.unbind(), or padded)"
WITHOUT_ARRAY = {
    "torch._utils._rebuild_qtensor": "a quantized tensor (in PyTorch: save x.dequantize())",
    "torch._utils._rebuild_sparse_tensor": _SPARSE,
    "torch._utils._rebuild_sparse_csr_tensor": _SPARSE,
    "torch._utils._rebuild_nested_tensor": _NESTED,
    "torch.nested._internal.nested_tensor._rebuild_njt": _NESTED,
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor of the device 'meta', which has no values",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a wrapper subclass, whose values are elsewhere",
}
_PLAIN = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
# Attributes by which torch.nn.Buffer marks its tensors.
_BUFFER = {"persistent", "_is_buffer"}


class Rebuild:
    """The calls by name; wrong arguments raise ValueError, TypeError or FormatError.

    ``notes`` collects the attributes of tensors that were left out.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.notes: set[str] = set()
        self.made: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor_v3": self.tensor_of_type,
            "torch._utils._rebuild_parameter": self.parameter,
            "torch._utils._rebuild_parameter_with_state": self.parameter_with_state,
            "torch._utils._rebuild_device_tensor_from_numpy": self.moved,
            "torch._utils._rebuild_device_tensor_from_cpu_tensor": self.moved,
            "torch._utils._rebuild_xla_tensor": self.moved,
        }
        self.calls: dict[str, Callable[..., Any]] = {
            **self.made,
            **dict.fromkeys((*_PLAIN[1:], "torch.autograd.variable.Variable"), self.parameter),
            "torch._tensor._rebuild_from_type_v2": self.of_type,
            "torch.tensor._rebuild_from_type": self.of_type,
            "torch._tensor._rebuild_from_type": self.of_type,
        }

    def tensor(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        grad: Any = None,
        hooks: Any = None,
        notes: Any = None,
    ) -> Any:
        return self.tensors.tensor((storage, offset, shape, strides), notes=notes)

    def tensor_of_type(
        self, storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, notes: Any = None
    ) -> Any:
        if dtype is None:
            raise ValueError
        return self.tensors.tensor((storage, offset, shape, strides), dtype, notes)

    def parameter(self, data: Any, grad: Any = None, hooks: Any = None) -> Any:
        if not isinstance(data, np.ndarray | Refused):
            raise ValueError
        return data

    def parameter_with_state(self, data: Any, grad: Any, hooks: Any, state: Any) -> Any:
        self._note(state)
        return self.parameter(data)

    def of_type(self, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
        """A tensor with attributes, or of a subclass."""
        if not isinstance(function, Unread) or not isinstance(kind, Unread) or type(arguments) is not tuple:
            raise ValueError
        if kind.name not in _PLAIN:
            advice = "in PyTorch: save x.as_subclass(torch.Tensor)"
            return Refused(kind.name, (f"a tensor of the class {kind.name:.200} ({advice})",))
        if function.name in WITHOUT_ARRAY:
            return Refused(function.name, (WITHOUT_ARRAY[function.name],))
        if function.name not in self.made:
            raise ValueError
        self._note(state)
        return self.made[function.name](*arguments)

    def _note(self, state: Any) -> None:
        """Note the attributes of a tensor, which are left out, except PyTorch's own."""
        for part in state if type(state) is tuple else (state,):
            if type(part) is dict:
                self.tensors.budget.spend(len(part))
                self.notes |= {str(key)[:50] for key in part} - _BUFFER

    def moved(self, data: Any, dtype: Any, place: Any, grad: Any) -> Any:
        """A tensor of a device whose memory cannot be saved directly, as a copy on the CPU, maybe of another type."""
        if isinstance(dtype, str) and dtype in dtypes.NAMES:
            return without_dtype(dtype)
        if not isinstance(data, np.ndarray) or not isinstance(dtype, np.dtype):
            raise ValueError
        return data if data.dtype == dtype else self.tensors.copy(data, dtype)
