"""How a module moves to another device or dtype."""

from typing import Any, Self

from gpulstm.backend import Device, backend_of
from gpulstm.backend import device as find_device
from gpulstm.dtypes import FLOATS, as_dtype
from gpulstm.nn.tree import Tree


class Moving(Tree):
    """The part of Module that moves parameters and buffers."""

    @property
    def device(self) -> Any:
        """The device of the first parameter, such as "cpu" or "cuda:0"; "cpu" for a module without parameters.

        A model may set ``self.device`` for its own use. Then this returns that value, until ``to`` moves the model.
        """
        if "device" in vars(self):
            return vars(self)["device"]
        return backend_of(next((p.data for p in self.parameters()), None)).name

    @device.setter
    def device(self, value: Any) -> None:
        vars(self)["device"] = value

    def to(self, device: "str | Device | None" = None, dtype: Any = None) -> Self:
        """Move parameters and buffers to a device, convert them to a dtype, or both.

        The arguments may also be positional: ``to("cuda")``, ``to("float64")``. Returns the module itself. Its
        parameters stay the same objects, and their gradients move too. Buffers that are not floating keep their dtype.
        Move a module before you make its optimiser: otherwise the next step raises if the optimiser's state is on
        another device or of another dtype.
        """
        if device is not None and not isinstance(device, Device) and _is_dtype(device):
            device, dtype = None, device
        backend = None if device is None else find_device(device).backend
        kind = None if dtype is None else as_dtype(dtype)
        for tensor in (*self.parameters(), *self.buffers()):
            there = backend or backend_of(tensor.data)
            new = kind if tensor.dtype.name in FLOATS else None
            with there:
                moved = there.asarray(tensor.data, new)
                if moved is not tensor.data:
                    tensor.data = moved
                tensor.grad = None if tensor.grad is None else there.asarray(tensor.grad, new)
        for module in self.modules() if backend is not None else ():
            if (own := vars(module).get("device")) is not None and backend is not None:
                module.device = find_device(backend.name) if isinstance(own, Device) else backend.name
        return self

    def cpu(self) -> Self:
        """Move all parameters and buffers to the processor."""
        return self.to("cpu")

    def cuda(self, index: int | None = None) -> Self:
        """Move all parameters and buffers to a GPU: the current one, or the one with this index."""
        return self.to("cuda" if index is None else f"cuda:{index}")

    def half(self) -> Self:
        """Convert all floating parameters and buffers to float16."""
        return self.to(dtype="float16")

    def bfloat16(self) -> Self:
        """Convert all floating parameters and buffers to bfloat16."""
        return self.to(dtype="bfloat16")

    def double(self) -> Self:
        """Convert all floating parameters and buffers to float64."""
        return self.to(dtype="float64")

    def float(self) -> Self:
        """Convert all floating parameters and buffers to float32."""
        return self.to(dtype="float32")


def _is_dtype(value: Any) -> bool:
    return not isinstance(value, str) or value.startswith(("float", "bfloat"))
