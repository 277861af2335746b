"""A compiled CUDA kernel: checks its arguments against its parameters, and launches it."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpulstm.errors import DeviceError, DTypeError, NoKernel, ShapeError, type_name

_WAVES = 32  # thread blocks of a grid-stride kernel per multiprocessor; more would only wait in a queue


class Parameter(NamedTuple):
    """One parameter of a kernel, as its source declares it."""

    name: str
    pointer: bool
    dtype: str  # NumPy's name of its type; "" for an unknown type, which accepts anything

    def __str__(self) -> str:
        number = {"int64": "an integer", "float64": "a float"}.get(self.dtype, self.dtype)
        return f"an array of {self.dtype} on the GPU" if self.pointer else number


_ENTRY = r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?{}\s*\(([^)]*)\)"
_TYPE = re.compile(r"(unsigned long long|long long|unsigned|int|bool|float|double|__half|__nv_bfloat16|REAL|ACC)\b")
_NUMPY = {
    "unsigned long long": "uint64", "long long": "int64", "unsigned": "uint32", "int": "int32", "bool": "bool",
    "float": "float32", "double": "float64", "__half": "float16", "__nv_bfloat16": "bfloat16",
}  # fmt: skip


def parameters(text: str, entry: str, real: Any) -> list[Parameter]:
    """The parameters of the kernel ``entry`` in a source, for storage type ``real``."""
    found = re.search(_ENTRY.format(re.escape(entry)), text)
    if found is None:
        raise NoKernel(f"{entry}: expected a kernel of this name in the source, not made by a macro; found none")
    name = np.dtype(real).name
    types = _NUMPY | {"REAL": name, "ACC": "float64" if name == "float64" else "float32"}
    answer = []
    for declared in filter(str.strip, found[1].split(",")):
        known = _TYPE.search(declared)
        answer.append(Parameter(re.findall(r"\w+", declared)[-1], "*" in declared, types[known[1]] if known else ""))
    return answer


class Rows(NamedTuple):
    """An argument that changes with the step t: row t of ``array``, or a null pointer if ``given[t]`` is False."""

    array: Any
    given: np.ndarray | None = None


class Kernel:
    """One compiled kernel on one device."""

    def __init__(self, name: str, function: Any, parameters: list[Parameter], cupy: Any, device: Any) -> None:
        self.name, self.function, self.parameters = name, function, parameters
        self._cupy, self._device = cupy, device
        attributes = device.attributes
        self.max_threads = min(attributes["MaxThreadsPerBlock"], function.max_threads_per_block)
        self._max_blocks = attributes["MaxGridDimX"]
        self._max_shared = attributes["MaxSharedMemoryPerBlock"] - function.shared_size_bytes
        self._wave_blocks = _WAVES * attributes["MultiProcessorCount"]

    def __call__(self, size: int, *args: Any, threads: int = 256, blocks: int | None = None, shared: int = 0) -> None:
        """Launch with ``size`` elements for a grid-stride loop, or with an exact number of thread ``blocks``.

        Arrays are passed as pointers, integers as ``long long``, floats as ``double``, None as a null pointer. Raises
        NoKernel if the launch exceeds a limit of the device, ShapeError if an array is not contiguous, and DTypeError
        or DeviceError if an argument does not fit the kernel's parameter.
        """
        grid = self._grid(size, threads) if blocks is None else blocks
        self.bound(*args, threads=threads, blocks=grid, shared=shared)()

    def bound(self, *args: Any, threads: int, blocks: int, shared: int = 0) -> Callable[..., None]:
        """Return a function that launches with ``args``, which are checked once; it takes further integer arguments."""
        self._check_limits(threads, blocks, shared)
        count = len(args)
        packed = tuple(self._packed(arg, place) for place, arg in enumerate(args))

        def launch(*more: int) -> None:
            if count + len(more) != len(self.parameters):
                raise ShapeError(f"{self.name}: expected {len(self.parameters)} arguments, got {count + len(more)}")
            if blocks:  # CUDA does not accept an empty grid
                with self._device:
                    self.function((blocks,), (threads,), (*packed, *map(np.int64, more)), shared_mem=shared)

        return launch

    def over(
        self, steps: int, size: int, *args: Any, threads: int = 256, blocks: int | None = None, shared: int = 0
    ) -> Callable[[int], None]:
        """Return a function of t that launches step t, on the stream and device that are current now.

        ``args`` may be Rows. The arguments of all steps are packed in advance, so a launch takes the host one call.
        """
        grid = self._grid(size, threads) if blocks is None else blocks
        self._check_limits(threads, grid, shared)
        if len(args) != len(self.parameters):
            raise ShapeError(f"{self.name}: expected {len(self.parameters)} arguments, got {len(args)}")
        if not grid or not steps:
            return lambda t: None
        values = np.empty((steps, len(args)), np.int64)
        for place, arg in enumerate(args):
            values[:, place] = self._addresses(arg, place, steps)
        # CUDA expects a pointer to the value of each argument.
        pointers = values.ctypes.data + 8 * np.arange(values.size)
        first, width, function = pointers.ctypes.data, 8 * len(args), self.function.kernel.ptr
        stream, launch = self._cupy.cuda.get_current_stream().ptr, self._cupy.cuda.driver.launchKernel

        def call(t: int, _kept: tuple = (values, pointers, args)) -> None:
            launch(function, grid, 1, 1, threads, 1, 1, shared, stream, first + t * width, 0)

        return call

    def _grid(self, size: int, threads: int) -> int:
        """The number of thread blocks of a grid-stride loop over ``size`` elements."""
        return min(math.ceil(size / threads), self._wave_blocks)

    def _check_limits(self, threads: int, blocks: int, shared: int) -> None:
        for what, want, got in (
            ("threads in a block", self.max_threads, threads),
            ("blocks", self._max_blocks, blocks),
            ("bytes of shared memory", self._max_shared, shared),
        ):
            if got > want:
                raise NoKernel(f"{self.name}: expected at most {want} {what} on this device, got {got}")

    def _addresses(self, arg: Any, place: int, steps: int) -> Any:
        """The 64-bit value of the argument for each step."""
        if isinstance(arg, Rows):
            rows, first = arg.array, self._packed(arg.array[0], place).data.ptr
            addresses = first + rows.strides[0] * np.arange(steps)
            return addresses if arg.given is None else np.where(arg.given, addresses, 0)
        packed = self._packed(arg, place)
        return packed.view(np.int64) if isinstance(packed, np.generic) else packed.data.ptr

    def _packed(self, arg: Any, place: int) -> Any:
        """The argument as CuPy expects it, a NumPy scalar or an array; raises the errors of ``__call__``."""
        if place >= len(self.parameters):
            raise ShapeError(f"{self.name}: expected {len(self.parameters)} arguments, got more")
        want = self.parameters[place]
        if arg is None and want.pointer:
            return np.uintp(0)
        if isinstance(arg, int | np.integer):
            packed: Any = np.int64(arg)
        elif isinstance(arg, float | np.floating):
            packed = np.float64(arg)
        elif isinstance(arg, self._cupy.ndarray) and want.pointer:
            return self._array(arg, want)
        else:
            raise DTypeError(f"{self.name}: {want.name}: expected {want}, got {type_name(arg)}")
        if want.pointer or want.dtype not in ("", packed.dtype.name):
            raise DTypeError(f"{self.name}: {want.name}: expected {want}, got {type_name(arg)}")
        return packed

    def _array(self, array: Any, want: Parameter) -> Any:
        if want.dtype not in ("", array.dtype.name):
            raise DTypeError(f"{self.name}: {want.name}: expected {want}, got one of {array.dtype}")
        if array.size and array.data.device_id != self._device.id:
            here, there = self._device.id, array.data.device_id
            raise DeviceError(f"{self.name}: {want.name}: expected an array on cuda:{here}, got one on cuda:{there}")
        if not array.flags.c_contiguous:
            got = f"one of shape {array.shape}, strides {array.strides}"
            raise ShapeError(f"{self.name}: {want.name}: expected a C-contiguous array, got {got}")
        return array
