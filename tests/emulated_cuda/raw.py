"""The stand-in's RawModule and RawKernel: a launch is checked as CUDA does and as a careful reader would.

CUDA checks only sizes. What it would take in silence (a wrong argument list, a write outside an array, arrays
that overlap although declared __restrict__) raises KernelFault here.
"""

import ctypes
import itertools
from typing import Any

import numpy as np

from . import compile as compiling
from . import devices
from .arrays import ndarray, pointer
from .memory import Block

_counter = itertools.count(1)  # seeds the order of blocks and threads, anew for every launch


class KernelFault(Exception):
    """A mistake that a GPU would not report."""


class _Launch(ctypes.Structure):
    """struct Launch of grid.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_size_t),
        ("seed", ctypes.c_uint64),
        ("message", ctypes.c_char * 256),
        ("cooperative", ctypes.c_int),
    )


class RawModule:
    """cupy.RawModule; compiles at the first use."""

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: Any = None,
    ) -> None:
        if code is None or path is not None or name_expressions:
            raise NotImplementedError('the stand-in compiles plain extern "C" text only')
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
        self.code, self.options, self.backend = code, options, backend
        self.enable_cooperative_groups = enable_cooperative_groups

    def compile(self, log_stream: Any = None) -> None:
        compiling.load(self.code, self.options)

    def get_function(self, name: str) -> "RawKernel":
        library, kernels = compiling.load(self.code, self.options)
        if name not in kernels:
            raise devices.CUDADriverError(500)
        return RawKernel(kernels[name], library, self.enable_cooperative_groups)


class RawKernel:
    """cupy.RawKernel, as RawModule.get_function answers it."""

    num_regs, local_size_bytes, const_size_bytes = 32, 0, 0  # a processor's compiler cannot know

    def __init__(self, kernel: compiling.Kernel, library: ctypes.PyDLL, cooperative: bool) -> None:
        self.enable_cooperative_groups = cooperative
        self.name = self.__name__ = kernel.name
        self.max_threads_per_block = kernel.max_threads
        self._kernel = kernel
        self._run = getattr(library, f"emulated_launch_{self.name}")
        parameters = getattr(library, f"emulated_parameters_{self.name}")
        parameters.restype = ctypes.c_char_p
        self._types = parameters().decode().split(";")[:-1]
        self.shared_size_bytes = _static_shared(library)

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, *, shared_mem: int = 0) -> None:
        grid, block = (tuple(max(1, n) for n in (*sizes, 1, 1)[:3]) for sizes in (grid, block))
        self._check_limits(grid, block, shared_mem)
        values = self._packed(args)
        watched = _Watch(self, args)
        sizes = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)
        launch = _Launch(*sizes, shared_mem, next(_counter), b"", self.enable_cooperative_groups)
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        ended = self._run(ctypes.byref(launch), addresses)
        watched.check()
        if not ended:
            raise KernelFault(f"{self.name}: {launch.message.decode()}")

    def _check_limits(self, grid: tuple[int, ...], block: tuple[int, ...], shared: int) -> None:
        limits = devices.ATTRIBUTES
        threads = block[0] * block[1] * block[2]
        within = (
            all(n <= limits[f"MaxGridDim{axis}"] for n, axis in zip(grid, "XYZ", strict=True))
            and all(n <= limits[f"MaxBlockDim{axis}"] for n, axis in zip(block, "XYZ", strict=True))
            and threads <= min(limits["MaxThreadsPerBlock"], self.max_threads_per_block)
            and shared + self.shared_size_bytes <= limits["MaxSharedMemoryPerBlock"]
        )
        if not within:
            raise devices.CUDADriverError(1)

    def _packed(self, args: tuple) -> list[np.ndarray]:
        """The arguments' bytes as CUDA reads them; raises KernelFault where they do not fit the signature."""
        if len(args) != len(self._types):
            raise KernelFault(f"{self.name}: want {len(self._types)} arguments, got {len(args)}")
        pairs = zip(args, self._types, self._kernel.parameters, strict=True)
        return [np.array(self._value(arg, kind, name)) for arg, kind, name in pairs]

    def _value(self, arg: Any, kind: str, name: str) -> Any:
        is_pointer = kind.startswith(("in ", "out "))
        want = f"an array of {kind.split()[1]}" if is_pointer else kind
        if is_pointer and (arg is None or (isinstance(arg, np.uintp) and arg == 0)):
            return np.uintp(0)
        if is_pointer and isinstance(arg, ndarray):
            if kind.split()[1] not in (arg.dtype.name, "void"):
                raise KernelFault(f"{self.name}: {name}: want {want}, got {arg.dtype}")
            if arg._block.device != devices.current():
                raise KernelFault(f"{self.name}: {name} lives on device {arg._block.device}, not the current one")
            return np.uintp(pointer(arg))
        packed = {bool: np.bool_, int: np.int64, float: np.float64}.get(type(arg), lambda same: same)(arg)
        if not isinstance(packed, np.generic) or packed.dtype.name != kind:
            raise KernelFault(f"{self.name}: {name}: want {want}, got {type(arg).__name__}")
        return packed


class _Watch:
    """The memory in and around the arrays of one launch, to see what was written that should not be."""

    def __init__(self, kernel: RawKernel, args: tuple) -> None:
        self._name = kernel.name
        self._extents = []  # (parameter, first byte, byte after the last, may be written, restricted, array)
        described = zip(args, kernel._types, kernel._kernel.parameters, kernel._kernel.restricted, strict=True)
        for arg, kind, name, restricted in described:
            if isinstance(arg, ndarray) and arg.size:
                low, high = np.lib.array_utils.byte_bounds(arg._array)
                self._extents.append((name, low, high, kind.startswith("out "), restricted, arg))
        self._check_overlap()
        self._blocks = {id(array._block): array._block for *_, array in self._extents}
        self._before = {key: block.raw.copy() for key, block in self._blocks.items()}

    def _check_overlap(self) -> None:
        for one, other in itertools.combinations(self._extents, 2):
            overlap = one[1] < other[2] and other[1] < one[2]
            if overlap and (one[3] or other[3]) and (one[4] or other[4]):
                raise KernelFault(f"{self._name}: {one[0]} and {other[0]} share memory, but one is __restrict__")

    def check(self) -> None:
        for block in self._blocks.values():
            self._check_block(block)

    def _check_block(self, block: Block) -> None:
        first = block.raw.ctypes.data
        changed = block.raw != self._before[id(block)]
        near = [extent for extent in self._extents if extent[-1]._block is block]
        for _, low, high, written, *_ in near:
            if written:
                changed[low - first : high - first] = False
        stray = np.flatnonzero(changed)
        if stray.size == 0:
            return
        block.raw[stray] = self._before[id(block)][stray]  # so that the next launch finds whole fences
        at = first + int(stray[0])
        name, low, high, *_, array = min(near, key=lambda extent: max(extent[1] - at, at - extent[2] + 1, 0))
        at -= (at - low) % array.itemsize  # a value may share its first bytes with what stood there
        if low <= at < high:
            where = "inside (const)"
        else:
            where = f"{low - at} bytes before" if at < low else f"{at - high} bytes after"
        raise KernelFault(f"{self._name}: wrote {where} the memory of argument {name}")


def _static_shared(library: ctypes.PyDLL) -> int:
    """Bytes of static shared memory of the whole module: no less than any one kernel's."""
    size = library.emulated_static_shared
    size.restype = ctypes.c_size_t
    return size()
