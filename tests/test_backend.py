"""Which backend arrays belong to, what each offers, and every way in which CUDA can be missing."""

import re
import subprocess
import sys
import types

import ml_dtypes
import numpy as np
import pytest

from gpulstm import backend
from gpulstm.backend import CPU, backend_of
from gpulstm.dtypes import accumulator, as_dtype
from gpulstm.errors import DeviceError, DTypeError

BFLOAT16 = ml_dtypes.bfloat16


# -- the arrays decide ----------------------------------------
def test_arrays_belong_to_their_backend(device):
    a, b = device.asarray([1.0, 2.0]), device.zeros((2, 3), np.float32)
    assert backend_of(a) is device and backend_of(None, a, 2.0, b, None, np.float32(3)) is device
    assert backend_of() is CPU and backend_of(None, 1, 2.5, True) is CPU


@pytest.mark.parametrize("thing", [[1.0], "text", object(), np.ndarray, (1, 2)])
def test_what_is_no_array_is_refused(thing):
    with pytest.raises(DTypeError, match=f"expected a NumPy or CuPy array, got {type(thing).__name__}"):
        backend_of(np.ones(2), thing)


def test_arrays_of_two_devices_are_refused_with_both_named(emulated):
    host, first = np.ones(2), emulated.ones(2)
    with emulated.cuda.Device(1):
        second = emulated.ones(2)
    for one, other, names in (
        (host, first, "cpu and cuda:0"),
        (first, host, "cuda:0 and cpu"),
        (first, second, "cuda:0 and cuda:1"),
    ):
        with pytest.raises(DeviceError, match=names):
            backend_of(one, None, other)


# -- what a backend offers ----------------------------------------
DTYPES = [np.float64, np.float32, np.float16, BFLOAT16, np.int64, np.int32, np.uint8, np.bool_]


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_in_and_go_out_unchanged(device, dtype):
    host = np.arange(12).reshape(3, 4).astype(dtype)
    for given in (host, host.T, host[:, ::2], host[::-1], host[0, 0:0], host[0, 0], host[1, 2, ...]):
        x = device.asarray(given)
        assert backend_of(x) is device and type(x) is device.xp.ndarray
        back = device.to_numpy(x)
        assert type(back) is np.ndarray and back.dtype == dtype and back.shape == given.shape
        np.testing.assert_array_equal(back, given)


def test_a_read_only_array_comes_in(device):
    host = np.arange(3.0)
    host.flags.writeable = False
    np.testing.assert_array_equal(device.to_numpy(device.asarray(host)), [0, 1, 2])


def test_lists_and_numbers_come_in(device):
    assert device.to_numpy(device.asarray([[1, 2], [3, 4]], np.float32)).tolist() == [[1, 2], [3, 4]]
    assert device.asarray([1, 2], np.float32).dtype == np.float32
    assert device.to_numpy(device.asarray(2.5)).item() == 2.5


def test_asarray_converts_but_does_not_copy_without_need(device):
    x = device.asarray(np.arange(3.0))
    assert device.asarray(x) is x and device.asarray(x, np.float64) is x
    assert device.asarray(x, np.float32).dtype == np.float32 and x.dtype == np.float64


class Foreign:
    """An array of a library with DLPack and nothing else, on the processor or on a GPU."""

    def __init__(self, array, kind=1):
        self._array, self._kind = array, kind

    def __dlpack_device__(self):
        return self._kind, 0

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        return self._array.__dlpack__()


@pytest.mark.parametrize("error", [BufferError("wants a gradient"), RuntimeError("a type without a name")])
def test_an_array_that_is_not_shared_says_why(device, error):
    class Unshared:
        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **options):
            raise error

    with pytest.raises(DTypeError, match=f"array: expected one whose memory NumPy can share, got a Unshared: {error}"):
        device.asarray(Unshared())


def test_arrays_with_dlpack_come_in(device):
    memory = np.arange(6.0).reshape(2, 3)
    x = device.asarray(Foreign(memory), np.float32)
    assert backend_of(x) is device and x.dtype == np.float32
    np.testing.assert_array_equal(device.to_numpy(x), memory)


def test_dlpack_memory_on_the_same_device_is_not_copied(emulated):
    cuda = backend.device("cuda").backend
    memory = np.arange(6.0).reshape(2, 3)
    there = cuda.asarray(memory)
    cuda.asarray(Foreign(there, kind=2))[0, 0] = 7
    assert there[0, 0].item() == 7
    assert np.shares_memory(CPU.asarray(Foreign(memory)), memory)


def test_dlpack_comes_before_an_interface_that_has_no_name_for_bfloat16(emulated):
    """torch.Tensor has both; its __cuda_array_interface__ calls bfloat16 <V2, two bytes of anything."""

    class Tensor(Foreign):
        __cuda_array_interface__ = property(lambda self: self._array.__cuda_array_interface__ | {"typestr": "<V2"})

    cuda = backend.device("cuda").backend
    there = cuda.asarray(np.float32([1, 2]).astype(BFLOAT16))
    x = cuda.asarray(Tensor(there, kind=2))
    assert x.dtype == BFLOAT16 and x.data.ptr == there.data.ptr


def test_memory_with_a_cuda_array_interface_is_not_copied(emulated):
    class Interface:
        def __init__(self, array):
            self.array = array
            self.__cuda_array_interface__ = array.__cuda_array_interface__

    memory = emulated.arange(3.0)
    backend.device("cuda").backend.asarray(Interface(memory))[1] = 7
    assert memory.tolist() == [0, 7, 2]


def test_arrays_move_between_devices(emulated):
    first, second = backend.device("cuda:0").backend, backend.device("cuda:1").backend
    x = first.asarray(np.arange(6.0).reshape(2, 3))
    for moved, there in (
        (second.asarray(x), second),
        (second.asarray(x.T, np.float32), second),
        (CPU.asarray(x), CPU),
    ):
        assert backend_of(moved) is there
    np.testing.assert_array_equal(second.asarray(x.T).get(), x.get().T)
    assert backend_of(first.asarray(second.asarray(x))) is first


def test_memory_is_new_and_of_the_kind_asked_for(device):
    for make in (device.empty, device.zeros):
        x = make((3, 4), np.float32)
        assert x.shape == (3, 4) and x.dtype == np.float32 and x.flags.c_contiguous and backend_of(x) is device
    assert not device.to_numpy(device.zeros((3, 4), np.float16)).any()
    big = device.zeros((300, 1000), np.float32)  # from the pool on NumPy
    big += 1
    del big
    assert not device.to_numpy(device.zeros((300, 1000), np.float32)).any()
    assert device.zeros((0, 3), np.float32).shape == (0, 3)


def test_memory_is_reported_and_work_is_waited_for(device):
    free, total = device.memory()
    assert 0 <= free <= total
    device.synchronize()


def test_a_backend_makes_its_device_current(emulated):
    second = backend.device("cuda:1").backend
    with second as entered:
        assert entered is second and emulated.cuda.Device().id == 1
        assert backend_of(emulated.zeros(2)) is second
    assert emulated.cuda.Device().id == 0
    assert backend_of(second.empty((2,), np.float32)) is second
    with CPU as entered:
        assert entered is CPU


def test_only_cuda_has_kernels(device):
    assert (device.kernels is not None) == device.is_cuda == (device.why_no_kernels == "")
    assert repr(device) == f"<backend {device.name}>"


# -- devices by name ----------------------------------------
def test_devices_have_names(emulated):
    assert str(backend.device("cpu")) == "cpu" and backend.device("cpu").backend is CPU
    for name, index in (("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)):
        found = backend.device(name)
        assert str(found) == found.name == f"cuda:{index}" and found.reason == ""
        assert found.backend.index == index and found.backend.is_cuda
        assert backend.device(found) is found
    with emulated.cuda.Device(1):
        assert backend.device("cuda").name == "cuda:1"  # the current one
    assert backend.device("cuda:1").backend is backend.device("cuda:1").backend


@pytest.mark.parametrize(
    "name", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", "auto:1", None, 0, "cuda:0:1"]
)
def test_other_names_are_refused(emulated, name):
    with pytest.raises(DeviceError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:<number>', got"):
        backend.device(name)


def test_a_device_that_is_not_there_is_refused(emulated):
    with pytest.raises(DeviceError, match="'cuda:2': expected a number below 2, the number of GPUs, got 2"):
        backend.device("cuda:2")


# -- every way in which CUDA can be missing ----------------------------------------
def _changed(**runtime):
    """A CuPy of other answers of the CUDA runtime."""
    answers = {"driverGetVersion": lambda: 13020, "runtimeGetVersion": lambda: 13020, "getDeviceCount": lambda: 1}
    return types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=types.SimpleNamespace(**answers | runtime)))


def _raises(error):
    def call(*args, **kwargs):
        raise error

    return call


def _without_nvrtc():
    cupy = _changed()
    library = "CuPy failed to load libnvrtc.so.13: OSError: cannot open shared object file\nand more lines"
    cupy.RawModule = lambda **kwargs: types.SimpleNamespace(compile=_raises(RuntimeError(library)))
    return cupy


class CUDARuntimeError(RuntimeError):
    """CuPy's class of that name."""


_NO_DRIVER = CUDARuntimeError("cudaErrorInsufficientDriver")
BROKEN = {
    "missing": (
        lambda: None,
        r'CuPy is not installed \(pip install "cupy-cuda13x\[ctk\]"; for a driver.*"cupy-cuda12x\[ctk\]"',
    ),
    "no driver": (lambda: _changed(driverGetVersion=lambda: 0), "no NVIDIA driver was found"),
    "driver broken": (
        lambda: _changed(driverGetVersion=_raises(_NO_DRIVER)),
        "CUDA does not start: CUDARuntimeError",
    ),
    "devices broken": (
        lambda: _changed(getDeviceCount=_raises(_NO_DRIVER)),
        "CUDA does not start: CUDARuntimeError",
    ),
    "no GPU": (lambda: _changed(getDeviceCount=lambda: 0), "no NVIDIA GPU was found"),
    "wrong major": (
        lambda: _changed(driverGetVersion=lambda: 12080),
        r'CUDA 13, but the driver supports CUDA up to 12; install another CuPy: pip install "cupy-cuda12x\[ctk\]"',
    ),
    "old driver": (
        lambda: _changed(driverGetVersion=lambda: 11080),
        "built for CUDA 13, but the driver supports CUDA up to 11; update the driver",
    ),
    "no NVRTC": (
        _without_nvrtc,
        r'cannot compile a kernel \(is.* pip install "cupy-cuda13x\[ctk\]"\).*failed to load libnvrtc.so.13[^\n]*$',
    ),
}


@pytest.fixture
def broken(request, monkeypatch):
    make, reason = BROKEN[request.param]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", make())
        backend._forget_devices()
        yield reason
    backend._forget_devices()


@pytest.mark.parametrize("broken", BROKEN, indirect=True)
def test_auto_falls_back_and_keeps_the_reason(broken):
    found = backend.device("auto")
    assert found.name == "cpu" and found.backend is CPU
    assert re.search(broken, found.reason), found.reason
    assert backend.device("cpu").reason == ""


@pytest.mark.parametrize("broken", BROKEN, indirect=True)
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_asking_for_cuda_raises_the_reason(broken, name):
    with pytest.raises(DeviceError, match=f"device '{name}' cannot be used: .*{broken}"):
        backend.device(name)


@pytest.mark.parametrize("failure", ["raise ImportError('libcudart.so.13: cannot open')", "import no_such_dependency"])
def test_a_cupy_that_does_not_import_is_reported_not_swallowed(tmp_path, monkeypatch, failure):
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(failure)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "cupy", raising=False)
        patch.syspath_prepend(tmp_path)
        backend._forget_devices()
        words = "CuPy is installed but cannot be imported: .*(cannot open|no_such_dependency)"
        with pytest.raises(DeviceError, match=words):
            backend.device("cuda")
        assert backend.device().name == "cpu" and backend.device().reason
    backend._forget_devices()


def test_a_newer_driver_serves_an_older_cupy(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", _without_nvrtc())  # which is what is asked next
        patch.setattr(sys.modules["cupy"].cuda.runtime, "runtimeGetVersion", lambda: 12080)
        backend._forget_devices()
        assert "NVRTC" in backend.device("auto").reason
    backend._forget_devices()


# -- types and imports ----------------------------------------
@pytest.mark.parametrize("given, want", [
    ("float32", np.float32), ("float64", np.float64), ("float16", np.float16), ("bfloat16", BFLOAT16),
    (np.float32, np.float32), (np.dtype("f8"), np.float64), (BFLOAT16, BFLOAT16), (float, np.float64),
])  # fmt: skip
def test_floating_types_have_names(given, want):
    assert as_dtype(given) == np.dtype(want) and isinstance(as_dtype(given), np.dtype)
    assert accumulator(as_dtype(given)) == (np.float64 if want is np.float64 else np.float32)


@pytest.mark.parametrize("given", ["int32", "float8", "complex64", int, "nonsense", object()])
def test_other_types_are_refused(given):
    with pytest.raises(DTypeError, match="expected float32, float64, float16 or bfloat16, got"):
        as_dtype(given)


def test_importing_gpulstm_imports_nothing_heavy():
    heavy = (
        "cupy",
        "cupyx",
        "tqdm",
        "click",
        "matplotlib",
        "safetensors",
        "ml_dtypes",
        "torch",
        "onnx",
        "scipy",
    )
    code = f"import gpulstm, sys; print(*[name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == ""
    control = subprocess.run(
        [sys.executable, "-c", "import click; " + code], capture_output=True, text=True, check=True
    )
    assert control.stdout.strip() == "click"
