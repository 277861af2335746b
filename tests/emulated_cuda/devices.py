"""The stand-in's ``cupy.cuda``: two devices of fixed limits, the current one, streams that do nothing."""

import threading
import types

from .memory import TOTAL, USED, OutOfMemoryError

COUNT = 2
CUDA_VERSION = 13020
# The limits of every CUDA device since compute capability 5.0, and a small number of multiprocessors.
ATTRIBUTES = {
    "MaxThreadsPerBlock": 1024,
    "MaxBlockDimX": 1024,
    "MaxBlockDimY": 1024,
    "MaxBlockDimZ": 64,
    "MaxGridDimX": 2**31 - 1,
    "MaxGridDimY": 65535,
    "MaxGridDimZ": 65535,
    "MaxSharedMemoryPerBlock": 49152,
    "MaxRegistersPerBlock": 65536,
    "MultiProcessorCount": 4,
    "WarpSize": 32,
}
_thread = threading.local()


class CUDARuntimeError(RuntimeError):
    """cupy.cuda.runtime.CUDARuntimeError."""

    def __init__(self, status: int) -> None:
        self.status = status
        names = {101: "cudaErrorInvalidDevice: invalid device ordinal"}
        super().__init__(names.get(status, f"cudaError {status}"))


class CUDADriverError(RuntimeError):
    """cupy.cuda.driver.CUDADriverError."""

    def __init__(self, status: int) -> None:
        self.status = status
        names = {
            1: "CUDA_ERROR_INVALID_VALUE: invalid argument",
            500: "CUDA_ERROR_NOT_FOUND: named symbol not found",
        }
        super().__init__(names.get(status, f"CUDA_ERROR {status}"))


def current() -> int:
    return getattr(_thread, "device", 0)


def set_current(device: int) -> None:
    if not 0 <= device < COUNT:
        raise CUDARuntimeError(101)
    _thread.device = device


class Device:
    """cupy.cuda.Device: a context manager that makes its device the current one."""

    __module__ = "cupy.cuda.device"

    def __init__(self, device: "int | Device | None" = None) -> None:
        self.id = current() if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None  # as in CuPy, whose Device defines equality alone

    def __enter__(self) -> "Device":
        stack = _thread.__dict__.setdefault("stack", [])
        stack.append(current())
        set_current(self.id)
        return self

    def __exit__(self, *exception: object) -> None:
        set_current(_thread.stack.pop())

    def use(self) -> "Device":
        set_current(self.id)
        return self

    def synchronize(self) -> None:
        if not 0 <= self.id < COUNT:
            raise CUDARuntimeError(101)

    @property
    def attributes(self) -> dict[str, int]:
        return dict(ATTRIBUTES)

    @property
    def compute_capability(self) -> str:
        return "90"

    @property
    def mem_info(self) -> tuple[int, int]:
        return TOTAL - USED[self.id], TOTAL


class Stream:
    """cupy.cuda.Stream: a launch of the stand-in has ended when it returns; there is nothing to wait for."""

    null: "Stream"
    ptr = 0

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        pass

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


Stream.null = Stream(null=True)


class MemoryPool:
    """cupy.get_default_memory_pool(): counts live memory; it keeps no free blocks."""

    def used_bytes(self) -> int:
        return USED[current()]

    total_bytes = used_bytes

    def free_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        pass


POOL = MemoryPool()


def _device_properties(device: int) -> dict[str, object]:
    return {"name": b"emulated CUDA device", "totalGlobalMem": TOTAL, "major": 9, "minor": 0}


def module(compile_exception: type) -> types.ModuleType:
    """The module object ``cupy.cuda``."""
    cuda = types.ModuleType("cupy.cuda")
    cuda.runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDevice=current,
        setDevice=set_current,
        getDeviceCount=lambda: COUNT,
        getDeviceProperties=_device_properties,
        memGetInfo=lambda: Device().mem_info,
        deviceSynchronize=lambda: None,
        runtimeGetVersion=lambda: CUDA_VERSION,
        driverGetVersion=lambda: CUDA_VERSION,
    )
    cuda.driver = types.SimpleNamespace(CUDADriverError=CUDADriverError)
    cuda.compiler = types.SimpleNamespace(CompileException=compile_exception)
    cuda.memory = types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    cuda.Device, cuda.Stream, cuda.MemoryPool = Device, Stream, MemoryPool
    cuda.is_available = lambda: True
    cuda.get_device_id = current
    cuda.get_current_stream = lambda device_id=-1: Stream.null
    return cuda
