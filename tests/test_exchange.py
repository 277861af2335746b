"""A Tensor among others: compared, hashed, formatted, read by NumPy and other libraries, copied and pickled."""

import copy
import math
import operator
import pickle
from unittest import mock

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.backend import check_plain
from gpulstm.errors import DeviceError, DTypeError, GpulstmError, ShapeError
from gpulstm.tape import TapeError


@pytest.fixture
def leaf(device, rng):
    """Makes a leaf on the device."""

    def make(values, dtype=np.float64, requires_grad=True):
        return gl.Tensor(device.asarray(np.asarray(values, dtype)), requires_grad)

    return make


# -- comparisons ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_they_compare_elements(device, leaf, name):
    compare = getattr(operator, name)
    values, others = np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([1.0, 3.0])
    x, y = leaf(values), leaf(others, requires_grad=False)
    for left, right, want in (
        (x, 2, compare(values, 2)),
        (2.5, x, compare(2.5, values)),
        (x, y, compare(values, others)),
        (x, y.astype("float32"), compare(values, others)),
        (x, device.asarray(others), compare(values, others)),
        (device.asarray(others), x, compare(others, values)),
        (np.float64(2), x, compare(2, values)),
        (x, np.int64(2), compare(values, 2)),
        (y, True, compare(others, True)),
        (x, x.detach(), compare(values, values)),
    ):
        got = compare(left, right)
        assert isinstance(got, gl.Tensor) and got.dtype == np.bool_ and not got.requires_grad
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize(
    "other", [None, "a", b"a", [1.0, 2.0], (1.0, 2.0), {}, 1j, object(), float], ids=lambda other: type(other).__name__
)
def test_what_is_no_number_is_never_compared_in_silence(leaf, other):
    x = leaf([1.0, 2.0])
    for compare in (operator.eq, operator.ne, operator.lt):
        with pytest.raises(
            DTypeError, match=rf"expected (arrays or numbers|an array or a Tensor), got {type(other).__name__}"
        ):
            compare(x, other)
        if other is not float and not isinstance(other, str | bytes | list | tuple | dict):
            with pytest.raises(DTypeError):
                compare(other, x)
    with pytest.raises(ShapeError, match=r"equal: expected shapes that broadcast, got \(2,\) and \(3,\)"):
        x == leaf([1.0, 2.0, 3.0])  # noqa: B015


def test_a_stranger_that_compares_itself_is_asked():
    assert gl.tensor(1.0) == pytest.approx(1.0) and gl.tensor([1.0, 2.0]) == pytest.approx([1.0, 2.0])
    assert gl.tensor([1.0, 2.0]) == mock.ANY and gl.tensor(1.0) != pytest.approx(2.0)


def test_they_are_hashed_by_identity(leaf):
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    assert len({x, y, x}) == 2 and {x: "x", y: "y"}[y] == "y" and hash(x) == hash(x)
    layer = gl.Linear(2, 2)
    assert len(set(layer.parameters())) == 2 and layer.weight in {layer.weight}
    with pytest.raises(
        ShapeError, match=r"bool: expected a tensor of one element, got shape \(2,\); use any\(\) or all\(\)"
    ):
        _ = y in [x]


def test_masks_combine(device, leaf):
    x = leaf([-1.0, 0.0, 2.0, 5.0])
    inside = (x > -1) & (x <= 2)
    assert inside.tolist() == [False, True, True, False] and (~inside).tolist() == [True, False, False, True]
    assert (inside | (x == 5)).any() and not (inside ^ inside).any() and inside[1:3].all()
    assert x[inside].tolist() == [0, 2]
    gl.where(inside, x, 0.0).sum().backward()
    assert device.to_numpy(x.grad).tolist() == [0, 1, 1, 0]
    with pytest.raises(DTypeError, match="bitwise_and: expected booleans or integers, got float64"):
        x & inside


# -- numbers and text ----------------------------------------------------------------------------------------
def test_as_a_number(device, leaf):
    x, n = leaf([2.6]), leaf(3, np.int32, requires_grad=False)
    assert (float(x), int(x), complex(x), round(x), round(x, 1)) == (2.6, 2, 2.6, 3, 2.6)
    assert math.isclose(math.sqrt(x), math.sqrt(2.6)) and abs(-x).item() == 2.6 and (+x) is x
    assert [10, 11, 12, 13][n] == 13 and list(range(n)) == [0, 1, 2] and np.arange(4)[n] == 3
    for wrong in (x, leaf([1, 2], np.int64, requires_grad=False)):
        with pytest.raises(DTypeError, match="index: expected an integer tensor of one element, got"):
            operator.index(wrong)
    for function in (float, int, complex, round):
        with pytest.raises(ShapeError, match=r"item: expected a tensor of one element, got shape \(2,\)"):
            function(leaf([1.0, 2.0]))


def test_as_a_sequence(leaf):
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2 and 3.0 in x and 5 not in x and [row.tolist() for row in x] == [[1, 2], [3, 4]]
    for function, message in (
        (len, "len: expected a tensor with an axis"),
        (list, "iteration: expected a tensor with an axis"),
    ):
        with pytest.raises(TypeError, match=message):
            function(x.sum())


def test_formats(leaf):
    x, many = leaf(2.34567), leaf([1.0, 2.0])
    assert f"{x:.3f}" == "2.346" and f"{leaf([2.0]):5.1f}" == "  2.0" and f"{leaf(3, np.int64, False):04d}" == "0003"
    assert f"{many}" == str(many) == repr(many) and "1., 2." in str(many) and f"{x}" == repr(x)
    with pytest.raises(ShapeError, match=r"format '.3f': expected a tensor of one element, got shape \(2,\)"):
        format(many, ".3f")


# -- arrays of NumPy -----------------------------------------------------------------------------------------
def test_numpy_reads_what_needs_no_gradient(tmp_path):
    x = gl.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert np.asarray(x) is x.data or np.shares_memory(np.asarray(x), x.data)
    assert np.array(x).dtype == np.float32 and not np.shares_memory(np.array(x), x.data)
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.array(x, dtype=np.float64, copy=False)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)
    assert np.shares_memory(np.from_dlpack(x), x.data)
    for got, want in (
        (np.exp(x), np.exp(x.data)),
        (np.sum(x), 10),
        (np.mean(x, axis=0), [2, 3]),
        (np.concatenate([x, x]), np.concatenate([x.data, x.data])),
        (np.where(x > 2, x, 0), [[0, 0], [3, 4]]),
        (np.add.reduce(x), [4, 6]),
        (np.maximum(x, 2), [[2, 2], [3, 4]]),
    ):
        assert not isinstance(got, gl.Tensor)
        np.testing.assert_array_equal(got, want)
    array = np.ones((2, 2), np.float32)
    array += x
    assert array.tolist() == [[2, 3], [4, 5]] and np.array_equal(x, x) and np.allclose(x, x.data)


def test_where_a_gradient_would_be_lost_detach_is_asked_for(tmp_path):
    parameter = gl.Linear(2, 2).weight
    array = np.ones((2, 2), np.float32)
    for x in (parameter, parameter * 2):
        for read in (np.asarray, np.array, np.from_dlpack, np.exp, np.sum, np.mean, np.linalg.norm, array.__iadd__,
                     lambda t: np.save(tmp_path / "x.npy", t), lambda t: np.concatenate([array, t]),
                     lambda t: np.add(array, t, out=array)):  # fmt: skip
            with pytest.raises(TapeError, match=r"without a gradient, got one that requires one; call detach\(\)"):
                read(x)
            read(x.detach())
    with pytest.raises(TapeError, match=r"np.exp: .* detach\(\) first, or use a function of gpulstm"):
        np.exp(parameter)


def test_numpys_operators_stay_on_the_tape(device):
    x = gl.Tensor(device.xp.ones((2, 2), np.float32), requires_grad=True)
    array = device.xp.full((2, 2), 3, np.float32)
    for y, want in ((array + x, 4), (array - x, 2), (array * x, 3), (array / x, 3), (array**x, 3), (array @ x, 6)):
        assert isinstance(y, gl.Tensor) and y.requires_grad and (y == want).all()
    for y in (np.float32(3) - x, np.float64(3) - x, np.int64(3) - x):
        assert isinstance(y, gl.Tensor) and y.requires_grad and y.dtype == np.float32 and (y == 2).all()
    assert isinstance(array >= x, gl.Tensor) and (array >= x).all() and not (array < x).any()


def test_tensors_on_a_gpu_say_where_they_are(emulated):
    x = gl.tensor([1.0, 2.0], device="cuda")
    for read in (np.asarray, np.array):
        with pytest.raises(DeviceError, match=r"expected a tensor on cpu, got one on cuda:0; copy it with .numpy"):
            read(x)
    assert emulated.shares_memory(emulated.asarray(x), x.data) and emulated.from_dlpack(x).get().tolist() == [1, 2]
    assert not hasattr(gl.tensor([1.0]), "__cuda_array_interface__")
    with pytest.raises(TapeError, match=r"__cuda_array_interface__: .*detach\(\) first"):
        emulated.asarray(gl.tensor([1.0], device="cuda", requires_grad=True))


@pytest.mark.oracle
def test_torch_shares_the_memory():
    import torch

    x = gl.tensor([1.0, 2.0])
    theirs = torch.from_dlpack(x)
    theirs[0] = 5
    assert x.tolist() == [5, 2] and torch.as_tensor(np.asarray(x)).tolist() == [5, 2]
    with pytest.raises(TapeError, match=r"detach\(\) first"):
        torch.from_dlpack(gl.tensor([1.0], requires_grad=True))


def test_matplotlib_draws_them():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    (line,) = figure.subplots().plot(gl.tensor([0.0, 1.0]), gl.tensor([2.0, 3.0]))
    assert line.get_ydata().tolist() == [2, 3]


# -- arrays that mean more than their numbers ----------------------------------------------------------------
class Quantity(np.ndarray):
    """Numbers with a unit, as libraries of units have them."""


MEANING = {
    "masked": np.ma.masked_array(np.ones((2, 2), np.float32), mask=[[True, False], [False, False]]),
    "nothing masked": np.ma.masked_array(np.ones((2, 2), np.float32)),
    "matrix": np.ones((2, 2), np.float32).view(np.matrix),
    "quantity": np.ones((2, 2), np.float32).view(Quantity),
    "records": np.zeros((2, 2), [("a", "f4"), ("b", "f4")]).view(np.recarray),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("name", MEANING)
def test_they_are_refused_wherever_arrays_come_in(name, tmp_path, emulated):
    x, plain = MEANING[name], np.ones((2, 2), np.float32)
    layer = gl.Linear(2, 2, device="cpu")
    message = r"expected a plain array, got a (MaskedArray|matrix|Quantity|recarray), which would lose information; "
    message += "|got (record64|.numpy.record)"  # where the element type is looked at first
    for take in (
        gl.Tensor,
        gl.tensor,
        lambda x: gl.tensor(x, dtype="float64"),
        lambda x: gl.tensor(x, device="cuda"),
        lambda x: gl.tensor([x, x]),
        layer,
        gl.LSTM(2, 2, device="cpu"),
        lambda x: gl.mse(x, plain),
        lambda x: gl.mse(plain, x),
        lambda x: functional.linear(plain, x),
        lambda x: functional.softmax(x),
        lambda x: layer.weight + x,
        lambda x: gl.tensor(plain).__setitem__(..., x),
        lambda x: gl.tensor(plain).__iadd__(x),
        lambda x: setattr(layer.weight, "grad", x),
        lambda x: setattr(layer.weight, "data", x),
        lambda x: layer.load_state_dict({"weight": x, "bias": plain[0]}),
        lambda x: gl.io.save_arrays(tmp_path / "x.safetensors", {"x": x}),
        gl.sigmoid,
        lambda x: gl.data.Batches(x, batch_size=1),
        lambda x: gl.data.pad_sequences([x, x]),
    ):
        with pytest.raises(GpulstmError, match=message):
            take(x)


def test_each_says_what_to_do():
    for name, way in (
        ("masked", r"fill it with x.filled\(value\), or split"),
        ("matrix", "np.asarray"),
        ("quantity", "np.asa"),
    ):
        with pytest.raises(DTypeError, match=way):
            gl.tensor(MEANING[name])
    with pytest.raises(DTypeError, match=r"expected one type of number, got .*choose a field, x\['a'\]"):
        gl.tensor(np.zeros(2, [("a", "f4"), ("b", "f4")]))


def test_mapped_files_and_plain_arrays_are_taken(tmp_path):
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3))
    t = gl.tensor(mapped)
    t += 1
    assert mapped.tolist() == [[1, 1, 1]] * 2 and gl.Linear(3, 2)(mapped).shape == (2, 2)
    check_plain([1.0, 2.0])
    check_plain(mapped)


@pytest.mark.parametrize("values", [["a", "b"], [1j], [None], np.array(["2020-01-01"], "datetime64[D]")], ids=str)
def test_what_is_no_number_is_no_tensor(values):
    with pytest.raises(DTypeError, match="x: expected booleans, integers or floating numbers, got"):
        gl.tensor(values)
    for wrong in (None, 3.0):
        with pytest.raises(
            DTypeError, match=r"data: expected an array, got (NoneType|float); make a tensor with gl.tensor"
        ):
            gl.Tensor(wrong)


# -- copies --------------------------------------------------------------------------------------------------
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "oldest pickle": lambda x: pickle.loads(pickle.dumps(x, 0)),
}


@pytest.mark.parametrize("name", COPIES)
def test_leaves_are_copied(device, leaf, name):
    frozen = gl.nn.Parameter(device.xp.ones(3))
    frozen.requires_grad = False
    for x in (leaf(np.ones(3)), leaf(np.ones(3), requires_grad=False), gl.nn.Parameter(device.xp.ones(3)), frozen):
        if x.requires_grad:
            (x * 2).sum().backward()
        twin = COPIES[name](x)
        assert type(twin) is type(x) and twin.requires_grad == x.requires_grad and twin.device == x.device
        assert not device.xp.may_share_memory(twin.data, x.data) and (twin == x).all()
        assert twin.version is not x.version
        if name == "deepcopy" and x.requires_grad:
            assert not device.xp.may_share_memory(twin.grad, x.grad) and (twin.grad == x.grad).all()
        else:
            assert twin.grad is None
        if x.requires_grad:
            before = device.to_numpy(x.grad).copy()
            (twin * 2).sum().backward()
            np.testing.assert_array_equal(device.to_numpy(x.grad), before)


@pytest.mark.parametrize("name", COPIES)
def test_what_hangs_on_the_tape_says_detach(leaf, name):
    layer, x = gl.Linear(2, 2, device="cpu"), leaf([1.0, 2.0])
    y = x.exp()
    word = "pickle" if "pickle" in name else "copy"
    with pytest.raises(TapeError, match=rf"{word}: expected a leaf, got a result of exp; call detach\(\) first"):
        COPIES[name](y)
    assert not COPIES[name](y.detach()).requires_grad
    with gl.no_grad():
        assert (COPIES[name](x.exp()) == y).all()
    layer.kept = layer(np.ones((1, 2), np.float32))
    if name != "copy":
        with pytest.raises(TapeError, match=r"a result of linear; call detach\(\) first"):
            COPIES[name]({"model": layer})


def test_what_is_shared_in_a_model_stays_shared_in_its_copy():
    layer = gl.Linear(2, 2)
    layer.twin, layer.alias = layer.weight, layer.weight.detach()
    twin = copy.deepcopy(layer)
    assert twin.twin is twin.weight and twin.weight is not layer.weight and twin.alias.data is twin.weight.data
    again = pickle.loads(pickle.dumps(layer))
    assert again.twin is again.weight


class Named(gl.Tensor):
    """A tensor with an attribute, as a user's class may have."""

    def __init__(self, data, name):
        super().__init__(data)
        self.name = name


@pytest.mark.parametrize("name", COPIES)
def test_subclasses_keep_what_they_hold(name):
    twin = COPIES[name](Named(np.ones(2), "x"))
    assert type(twin) is Named and twin.name == "x"


# -- gl.tensor of a Tensor -----------------------------------------------------------------------------------
def test_tensor_of_a_list_of_tensors():
    x = gl.tensor([1.0, 2.0])
    assert gl.tensor([x, x]).tolist() == [[1, 2], [1, 2]] and gl.tensor([x.sum(), 4.0]).tolist() == [3, 4]


def test_tensor_does_not_cut_the_tape(device, leaf):
    x = leaf([1.0, 2.0])
    for y in (x, x * 2, gl.nn.Parameter(device.xp.ones(2))):
        for options in ({}, {"dtype": "float32"}, {"device": device.name}, {"requires_grad": True}):
            with pytest.raises(TapeError, match=r"tensor: expected data without a gradient, .* x.to\(.*x.detach\(\)"):
                gl.tensor(y, **options)
        with pytest.raises(TapeError, match=r"tensor: expected data without a gradient, .* join them with gl.stack"):
            gl.tensor([y.sum(), y.sum()])
        assert gl.tensor(y.detach(), dtype="float32").dtype == np.float32
    lower, upper = gl.LSTM(3, 4, device="cpu"), gl.LSTM(4, 4, dtype="float64", device="cpu")
    hidden, _ = lower(np.ones((5, 2, 3), np.float32))
    with pytest.raises(GpulstmError, match=r"convert it with x.astype\('float64'\)"):
        upper(hidden)
    upper(hidden.astype("float64"))[0].sum().backward()
    assert all(p.grad is not None for p in lower.parameters())


# -- what another library does not share ---------------------------------------------------------------------
class Tensor:
    """Another library's tensor that hangs on its own tape."""

    def __dlpack__(self, **options):
        raise BufferError("detach it first")

    def __dlpack_device__(self):
        return (1, 0)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("x", gl.tensor),
        ("x", gl.relu),
        ("x", gl.ReLU()),
        ("x", gl.Linear(2, 2, device="cpu")),
        ("target", lambda x: gl.mse(np.ones(2), x)),
        ("b", lambda x: gl.tensor([1.0]) + x),
        (r"arrays\[1\]", lambda x: gl.stack([np.ones(2), x])),
    ],
)
def test_memory_that_is_not_shared_is_named(name, call):
    with pytest.raises(
        DTypeError, match=f"^{name}: expected one whose memory NumPy can share, got a tests.Tensor: detach it"
    ):
        call(Tensor())


def test_parameters_of_what_is_no_array_say_what_to_give():
    with pytest.raises(
        DTypeError,
        match=r"data: expected a NumPy or CuPy array, got tests\.Tensor; convert it with gl\.tensor\(x\)\.data",
    ):
        gl.Parameter(Tensor())
    with pytest.raises(DTypeError, match=r"got Tensor; pass its \.data"):
        gl.Parameter(gl.tensor([1.0]))
    layer = gl.Linear(2, 2, device="cpu")
    with pytest.raises(
        DTypeError, match=r"weight: expected a Parameter, because this attribute is trained, got a tests\.Tensor"
    ):
        layer.weight = Tensor()
    assert gl.Parameter(np.float32(3)).shape == ()


def test_byte_orders_of_types_are_this_machines():
    assert gl.tensor([1.0]).astype(">f4").dtype == np.dtype("=f4") == gl.tensor([1], dtype=">f4").dtype


def test_parts_and_numpys_functions_name_another_device(emulated):
    x = gl.tensor([1.0, 2.0], device="cuda")
    with pytest.raises(DeviceError, match=r"^key: expected cuda:0, the device of tensor, got cpu; move it with"):
        x[gl.tensor([0])]
    with pytest.raises(DeviceError, match=r"^key: expected cuda:0, the device of tensor, got cpu; move it with"):
        x[gl.tensor([0])] = 1
    with pytest.raises(DeviceError, match=r"^value: expected cuda:0, the device of tensor, got cpu; move it with"):
        x[0] = gl.tensor([1.0])
    with gl.explain() as runs:  # arrays of the host are moved
        x[np.array([0])] = np.float32([1])
        assert x[np.array([False, True])].tolist() == [2]
    assert [line.partition(" ")[0] for line in runs.moved] == ["value", "key", "key"]
    with pytest.raises(DeviceError, match=r"np.block: expected a tensor on cpu, got one on cuda:0; copy it with"):
        np.block([x, x])
    assert x[[0]].tolist() == [1] and x[gl.tensor([1], device="cuda")].tolist() == [2]
