"""The stand-in's arrays behave as CuPy's where NumPy's would not, and its names and signatures are CuPy's."""

import copy
import inspect
import pickle
import re

import ml_dtypes
import numpy as np
import pytest

from tests import emulated_cuda
from tests.conftest import require
from tests.emulated_cuda import devices, memory, signatures

xp = emulated_cuda.cupy


@pytest.fixture(autouse=True)
def _first_device():
    devices.set_current(0)


# -- refusing to mix with NumPy ----------------------------------------
HOST = np.ones(3, np.float32)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + HOST,
        lambda x: HOST + x,
        lambda x: HOST @ x,
        lambda x: x @ HOST,
        lambda x: x.__iadd__(HOST),
        lambda x: HOST.__iadd__(x),
        lambda x: np.add(x, HOST),
        lambda x: np.add(HOST, HOST, out=x),
        lambda x: xp.tanh(HOST),
        lambda x: xp.add(x, x, out=np.ones(3, np.float32)),
        lambda x: xp.sum(HOST),
        lambda x: xp.where(x > 0, HOST, x),
        lambda x: xp.concatenate([x, HOST]),
        lambda x: xp.matmul(x, x, out=np.ones((), np.float32)),
        lambda x: x < HOST,
        lambda x: x + list(range(3)),
        lambda x: np.asarray(x),
        lambda x: np.array([x, x]),
        lambda x: np.linalg.norm(x),
        lambda x: HOST.__setitem__(slice(None), x),
    ],
)
def test_mixing_with_numpy_is_refused(mix):
    with pytest.raises(TypeError):
        mix(xp.ones(3, xp.float32))


def test_assigning_a_numpy_array_is_refused():
    x = xp.zeros(3, xp.float32)
    with pytest.raises(ValueError, match="cannot be used for fill"):
        x[...] = HOST
    x[...] = np.float32(2)
    np.testing.assert_array_equal(x.get(), np.full(3, 2, np.float32))


def test_scalars_of_both_kinds_mix():
    x = xp.ones(3, xp.float32)
    for result in (x * 2, 2 * x, x * 2.0, np.float32(2) * x, x * np.float32(2)):
        assert type(result) is xp.ndarray and result.dtype == np.float32
        np.testing.assert_array_equal(result.get(), np.full(3, 2, np.float32))
    assert (x * np.float64(2)).dtype == np.float64


# -- what CuPy does in its own way ----------------------------------------
def test_results_without_dimensions_stay_arrays():
    x = xp.arange(6, dtype=np.float32).reshape(2, 3)
    for result in (x.sum(), x.mean(), x[0, 0], xp.max(x), xp.array_equal(x, x), xp.count_nonzero(x), x.any()):
        assert type(result) is xp.ndarray and result.shape == ()
    assert float(x.sum()) == 15 and x.sum().item() == 15 and int(x[1, 2]) == 5 and bool(x.any())
    with pytest.raises(TypeError):
        range(xp.arange(3).max())  # CuPy's arrays have no __index__


def test_bfloat16_is_widened_where_cupy_has_no_loop_for_it():
    x = xp.ones(3, ml_dtypes.bfloat16)
    assert xp.where(x > 0, x, x).dtype == x.sum().dtype == np.float32


def test_views_know_the_array_that_owns_their_memory():
    x = xp.zeros((3, 4), xp.float32)
    assert x.base is None and x.copy().base is None and x[[0, 1]].base is None
    assert x[1][2:].base is x.T.base is x.reshape(-1).base is x


def test_basic_indexing_gives_views_and_fancy_indexing_copies():
    x = xp.zeros((3, 4), xp.float32)
    x[1][2] = 5
    x[0, 0][...] = 7
    x.T[3, 2] = 9
    x.reshape(-1)[5] = 6
    xp.split(x, 3)[2][0, 0] = 8
    x.ravel()[1] += 1
    np.testing.assert_array_equal(x.get(), [[7, 1, 0, 0], [0, 6, 5, 0], [8, 0, 0, 9]])
    x[xp.asarray([0, 1])][...] = -1
    x[x > 100] = -1
    assert float(x.min()) == 0
    x[xp.asarray([0, 2])] = 1
    x[np.array([1])] = 2  # CuPy takes index arrays from the host
    np.testing.assert_array_equal(x.get(), np.repeat([[1], [2], [1]], 4, axis=1))


def test_an_element_assigned_twice_is_refused():
    x = xp.zeros(4)
    with pytest.raises(IndexError, match="twice"):
        x[xp.asarray([1, 1])] = xp.asarray([1.0, 2.0])


def test_results_are_in_c_order():
    a = xp.asarray(np.arange(6.0).reshape(2, 3)).T
    assert not a.flags.c_contiguous
    for result in (
        a + a,
        xp.tanh(a),
        a[:, xp.asarray([0, 1])],
        a.copy(),
        xp.where(a > 0, a, a),
        a.reshape(6),
    ):
        assert result.flags.c_contiguous
    assert xp.zeros_like(a).flags.f_contiguous and a.astype(np.float32).flags.f_contiguous


def test_out_is_the_answer_and_takes_the_values():
    x, out = xp.ones(3), xp.empty(3)
    for call in (
        lambda: xp.add(x, x, out=out),
        lambda: np.add(x, x, out=out),
        lambda: xp.add(x, x, out),
        lambda: xp.matmul(xp.eye(3), x * 2, out=out),
        lambda: xp.sum(xp.stack([x, x]), axis=0, out=out),
    ):
        out.fill(np.nan)
        assert call() is out
        np.testing.assert_array_equal(out.get(), [2.0, 2.0, 2.0])
    before = x
    x += 1
    assert x is before and float(x[0]) == 2


def test_a_product_into_one_of_its_factors_is_refused():
    x = xp.ones((2, 2))
    with pytest.raises(ValueError, match="shares memory"):
        xp.matmul(x, x, out=x)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_products_accumulate_in_float32(rng, dtype):
    a, b = (rng.standard_normal((2, 300, 300))).astype(dtype)
    want = (a.astype(np.float32) @ b.astype(np.float32)).astype(dtype)
    got = xp.asarray(a) @ xp.asarray(b)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.get(), want)


def test_bfloat16_sums_are_float32_and_means_are_not():
    x = xp.ones(3, ml_dtypes.bfloat16)
    assert x.sum().dtype == np.float32 and xp.max(x).dtype == np.float32
    assert x.mean().dtype == ml_dtypes.bfloat16


def test_arguments_that_numpy_takes_and_cupy_does_not_are_refused():
    x = xp.ones(3)
    for call in (
        lambda: xp.sum(x, initial=1.0),
        lambda: xp.add(x, x, where=x > 0),
        lambda: xp.max(x, where=x > 0),
        lambda: x.sum(None, None, None, False, 0),
        lambda: xp.asarray(x, like=x),
        lambda: np.cross(x, x),  # not in the stand-in at all
    ):
        with pytest.raises(TypeError):
            call()


def test_nothing_warns_as_a_gpu_does_not():
    x = xp.asarray(np.array([1e38, -1.0, 0.0], np.float32))
    assert np.isnan(xp.sqrt(x).get()[1]) and np.isinf((x * x).get()[0]) and np.isinf((1 / x).get()[2])


def test_sorting_is_stable():
    assert xp.argsort(xp.zeros(300)).tolist() == list(range(300))


def test_asarray_copies_only_where_it_must():
    x = xp.arange(3)
    assert xp.asarray(x) is x and xp.asarray(x, dtype=x.dtype) is x and xp.ascontiguousarray(x) is x
    assert xp.asarray(x, dtype=np.float32) is not x and xp.array(x) is not x
    host = np.arange(3)
    xp.asarray(host)[0] = 9
    assert host[0] == 0
    np.testing.assert_array_equal(xp.asarray([x, x + 1]).get(), [[0, 1, 2], [1, 2, 3]])
    with pytest.raises(ValueError, match="Unsupported dtype"):
        xp.asarray(np.array([None]))


def test_arrays_copy_and_pickle():
    x = xp.arange(3)
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        twin[0] = 5
        assert type(twin) is xp.ndarray and x.tolist() == [0, 1, 2] and twin.tolist() == [5, 1, 2]


# -- other libraries' memory ----------------------------------------
class Foreign:
    """Another library's array on a GPU, for what the stand-in can tell."""

    def __init__(self, array, device=0):
        self.array, self.device = array, device

    def __dlpack_device__(self):
        return 2, self.device

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()


class Interface:
    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = {**array.__array_interface__, "version": 3, "stream": 1}


def test_memory_of_another_library_is_taken_without_a_copy():
    memory = np.arange(6.0).reshape(2, 3)
    for taken, device in (
        (xp.from_dlpack(Foreign(memory, 1)), 1),
        (xp.asarray(Interface(memory)), 0),
        (xp.asarray(Interface(memory[:, ::2])), 0),
    ):
        assert type(taken) is xp.ndarray and taken.device.id == device
        with xp.cuda.Device(device):
            taken[0, 0] += 1
    assert memory[0, 0] == 3
    np.testing.assert_array_equal(taken.get(), memory[:, ::2])
    with pytest.raises(TypeError, match="CPU arrays cannot"):
        xp.from_dlpack(memory)


def test_own_memory_is_given_without_a_copy():
    x = xp.zeros((2, 3), xp.float32)
    assert x.__dlpack_device__() == (2, 0)
    for twin in (xp.from_dlpack(x), xp.asarray(Interface(x._array))):
        twin[1, 1] += 1
    assert float(x[1, 1]) == 2
    described = x.T.__cuda_array_interface__
    assert (
        described["data"] == (x.data.ptr, False) and described["strides"] == (4, 12) and described["typestr"] == "<f4"
    )


# -- devices and memory ----------------------------------------
def test_arrays_stay_on_their_device():
    a = xp.ones(3)
    with xp.cuda.Device(1):
        b = xp.ones(3)
        assert b.device.id == 1 and xp.cuda.Device().id == 1
        for mix in (
            lambda: a + 1,
            lambda: a + b,
            lambda: a.sum(),
            lambda: xp.add(b, b, out=a),
            lambda: b.__setitem__(0, a),
        ):
            with pytest.raises(ValueError, match="device"):
                mix()
        a.get(), a[1:], a.reshape(3, 1)  # none of these runs a kernel
        assert a.copy().device.id == 1 and xp.asarray(a).device.id == 1
    assert xp.cuda.Device().id == 0
    with pytest.raises(xp.cuda.runtime.CUDARuntimeError, match="invalid device"):
        xp.cuda.Device(2).use()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16, "complex64"])
def test_new_memory_holds_nan(dtype):
    for x in (xp.empty((3, 5), dtype), xp.empty_like(xp.zeros(4, dtype)), xp.ndarray(3, dtype)):
        assert np.isnan(x.get()).all()


def test_new_integers_are_recognisable():
    assert (xp.empty(4, np.int64).get() == 0x7A7A7A7A7A7A7A7A).all()
    assert (xp.empty(4, np.int8).get() == 0x7A).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16])
def test_fences_hold_signalling_nan(dtype):
    x = xp.zeros(3, dtype)
    fence = x._block.raw[: memory.FENCE].view(dtype)
    before = fence.copy()
    with np.errstate(all="ignore"):
        assert np.isnan(fence).all()
    if np.dtype(dtype).itemsize > 2:  # NumPy does half types in software, which need not make a NaN quiet
        with np.errstate(all="ignore"):
            fence += 1
        assert (fence.view(np.uint8) != before.view(np.uint8)).any()


def test_memory_is_counted_and_ends():
    before, _ = xp.cuda.Device(0).mem_info
    x = xp.zeros(1000)
    assert xp.cuda.Device(0).mem_info == (before - 8000, memory.TOTAL)
    assert xp.get_default_memory_pool().used_bytes() >= 8000
    del x
    assert xp.cuda.Device(0).mem_info[0] == before
    with pytest.raises(xp.cuda.memory.OutOfMemoryError, match="Out of memory"):
        xp.empty(memory.TOTAL)


def test_empty_arrays_have_no_address():
    assert xp.empty((0, 3)).data.ptr == 0 and xp.empty(3).data.ptr % 512 == 0


# -- the real CuPy, which imports without a GPU ----------------------------------------
@pytest.fixture(scope="module")
def cupy():
    return require("cupy")


def _described(documented):
    """The signature on the first line of a Cython method's documentation, its C types left out."""
    line = documented.splitlines()[0].partition(" -> ")[0]
    plain = re.sub(r"\b(?:Py_ssize_t|int|bool|str|tuple|_ndarray_base) (?=\w)", "", line)
    arguments = plain.partition("(")[2].rpartition(")")[0]
    return inspect.signature(eval(f"lambda {arguments}: None"))


def _plain(signature):
    parameters = [(p.name, p.kind, p.default) for p in signature.parameters.values()]
    return [p for p in parameters if p[0] != "self"]


@pytest.mark.parametrize("name", signatures.parse(signatures.FUNCTIONS))
def test_functions_have_cupys_signatures(cupy, name):
    real = getattr(cupy, name)
    try:
        theirs = inspect.signature(real)
    except ValueError:  # compiled; the documentation has it
        theirs = _described(real.__doc__)
    assert _plain(signatures.parse(signatures.FUNCTIONS)[name]) == _plain(theirs)
    assert _plain(inspect.signature(getattr(xp, name))) == _plain(theirs)


@pytest.mark.parametrize("name", signatures.parse(signatures.METHODS))
def test_methods_have_cupys_signatures(cupy, name):
    assert _plain(inspect.signature(getattr(xp.ndarray, name))) == _plain(
        _described(getattr(cupy.ndarray, name).__doc__)
    )


@pytest.mark.parametrize("name", ["copy", "fill", "get", "item", "set", "tobytes", "tolist", "view"])
def test_methods_with_a_body_of_their_own_do_too(cupy, name):
    assert _plain(inspect.signature(getattr(xp.ndarray, name))) == _plain(
        _described(getattr(cupy.ndarray, name).__doc__)
    )


def test_elementwise_functions_are_cupys(cupy):
    for name in signatures.UFUNCS:
        real, numpys = getattr(cupy, name), getattr(np, name)
        assert isinstance(real, cupy.ufunc) and (real.nin, real.nout) == (numpys.nin, numpys.nout), name


def test_bfloat16_arithmetic_is_cupys(cupy):
    """Elementwise functions have a loop for bfloat16, whose character is E, as they have for float16."""
    for name in ("add", "multiply", "tanh", "exp", "log1p", "sqrt", "maximum", "true_divide", "less"):
        types = getattr(cupy, name).types
        assert any(kind.startswith("E") for kind in types), name
        assert getattr(xp, name)(*[xp.ones(2, ml_dtypes.bfloat16)] * getattr(np, name).nin).dtype in (
            bool,
            ml_dtypes.bfloat16,
        )


def _public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def test_names_are_cupys(cupy):
    pairs = [
        (xp, cupy),
        (xp.ndarray, cupy.ndarray),
        (xp.cuda, cupy.cuda),
        (xp.cuda.Device, cupy.cuda.Device),
        (xp.cuda.Stream, cupy.cuda.Stream),
        (xp.cuda.MemoryPool, cupy.cuda.MemoryPool),
        (xp.cuda.runtime, cupy.cuda.runtime),
        (xp.cuda.driver, cupy.cuda.driver),
        (xp.cuda.compiler, cupy.cuda.compiler),
        (xp.cuda.memory, cupy.cuda.memory),
        (xp.RawModule, cupy.RawModule),
        (xp.RawKernel, cupy.RawKernel),
    ]
    for mine, theirs in pairs:
        assert _public(mine) - {"ptr"} <= _public(theirs), f"{theirs}: {_public(mine) - _public(theirs)}"
    specials = {name for name in vars(xp.ndarray) if name.startswith("__")} - {"__weakref__", "__slots__"}
    assert specials <= set(dir(cupy.ndarray))
    assert not hasattr(cupy.ndarray, "__index__") and not hasattr(xp.ndarray, "__index__")
    assert all(hasattr(cupy.cuda.runtime, f"cudaDevAttr{name}") for name in devices.ATTRIBUTES)
    assert xp.ndarray.__module__ == cupy.ndarray.__module__
    assert xp.ndarray.__array_priority__ == cupy.ndarray.__array_priority__


def test_errors_are_cupys(cupy):
    for place, name in (
        ("runtime", "CUDARuntimeError"),
        ("driver", "CUDADriverError"),
        ("compiler", "CompileException"),
        ("memory", "OutOfMemoryError"),
    ):
        mine, theirs = getattr(getattr(xp.cuda, place), name), getattr(getattr(cupy.cuda, place), name)
        assert mine.__mro__[1:] == theirs.__mro__[1:]
    assert str(xp.cuda.compiler.CompileException("log", "", "", ())) == "log"
    assert _plain(inspect.signature(cupy.cuda.compiler.CompileException.__init__)) == _plain(
        inspect.signature(xp.cuda.compiler.CompileException.__init__)
    )


def test_the_refusal_to_convert_is_worded_as_cupys(cupy):
    hollow = cupy.ndarray.__new__(cupy.ndarray, _no_init=True)  # owns no memory, so that no GPU is needed
    with pytest.raises(TypeError) as theirs:
        hollow.__array__()
    with pytest.raises(TypeError) as mine:
        xp.ones(1).__array__()
    assert str(mine.value) == str(theirs.value)


def test_raw_modules_are_made_as_cupys(cupy):
    documented = "(" + cupy.RawModule.__doc__.splitlines()[0].partition("(")[2]
    assert _plain(_described(documented)) == _plain(inspect.signature(xp.RawModule))
    assert _plain(_described(cupy.RawModule.get_function.__doc__)) == _plain(
        inspect.signature(xp.RawModule.get_function)
    )
    assert _plain(_described(cupy.RawModule.compile.__doc__)) == _plain(inspect.signature(xp.RawModule.compile))
    # Both are made without compiling, and compile at the first use.
    for library in (cupy, xp):
        library.RawModule(code="this is no C++", options=("-DREAL=float",))
    with pytest.raises(xp.cuda.compiler.CompileException, match="error"):
        xp.RawModule(code="this is no C++").compile()


def test_a_comparison_of_signatures_can_fail(cupy):
    assert _plain(inspect.signature(xp.sum)) != _plain(inspect.signature(np.sum))
    assert _plain(_described("f(self, int axis=-1, kind=None)")) != _plain(_described("f(self, axis=0, kind=None)"))
