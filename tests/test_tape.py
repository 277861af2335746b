"""The tape: what it remembers, in which order it runs, what it frees, and what it says of misuse."""

import gc
import weakref

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.errors import DeviceError, DTypeError, GpulstmError, ShapeError
from gpulstm.tape import TapeError, apply, backward, node
from tests.tolerances import assert_gradient, central_differences


@pytest.fixture
def leaf(device, rng):
    """Makes a leaf on the device: from an array, or of normal numbers of a shape."""

    def make(values, dtype=np.float64, requires_grad=True):
        if isinstance(values, tuple):
            values = rng.standard_normal(values)
        return gl.Tensor(device.asarray(np.asarray(values, dtype)), requires_grad)

    return make


def expression(x, w):
    """Uses most operators, both inputs twice, and one intermediate three times."""
    y = (x @ w + 1.5) * (2 - x[0, 0])
    z = y[1:] / (y[:-1] ** 2 + 3)
    return (z.T.reshape(-1).sum() - y.mean(axis=0)[0] * y.sum()) * w.sum()


def formula(x, w):
    """The same in NumPy."""
    y = (x @ w + 1.5) * (2 - x[0, 0])
    z = y[1:] / (y[:-1] ** 2 + 3)
    return (z.sum() - y.mean(axis=0)[0] * y.sum()) * w.sum()


def check_expression(device, x, w):
    a, b = (gl.Tensor(device.asarray(v.copy()), requires_grad=True) for v in (x, w))
    loss = expression(a, b)
    assert loss.item() == pytest.approx(formula(x, w), rel=1e-12)
    loss.backward()
    assert_gradient(a.grad, central_differences(lambda x: formula(x, w), x), "x")
    assert_gradient(b.grad, central_differences(lambda w: formula(x, w), w), "w")


def test_gradients_of_a_whole_expression(device, rng):
    check_expression(device, rng.standard_normal((3, 2)), rng.standard_normal((2, 4)))


def _overwrites(self, gradient, shared):
    self.grad = gradient.copy()


def _oldest_first(newest_first):
    return lambda roots: [*roots, *newest_first(roots)[:0:-1]]


def _first_use_only(newest_first):
    return lambda roots: newest_first(roots)[:-1]


@pytest.mark.parametrize("fault", ["grad is overwritten", "wrong order", "one node is left out"])
def test_the_check_of_gradients_sees_a_fault(monkeypatch, rng, fault):
    x, w = rng.standard_normal((3, 2)), rng.standard_normal((2, 4))
    backend = gl.device("cpu").backend
    if fault == "grad is overwritten":
        monkeypatch.setattr(gl.Tensor, "_accumulate", _overwrites)
    else:
        change = _oldest_first if fault == "wrong order" else _first_use_only
        monkeypatch.setattr(node, "_newest_first", change(node._newest_first))
    with pytest.raises(AssertionError):
        check_expression(backend, x, w)


# -- the graph -----------------------------------------------------------------------------------------------
def test_a_tensor_used_often_adds_up(leaf):
    x = leaf([1.0, 2.0])
    y = x * x
    (y + y * y + x).sum().backward()
    np.testing.assert_allclose(gl.Tensor(x.grad).numpy(), [2 + 4 + 1, 4 + 32 + 1])


def test_a_chain_of_ten_thousand(leaf):
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 1
    y.backward()
    assert float(x.grad) == 1 and y.item() == 10_001


def test_a_long_chain_is_dropped_without_backward():
    y = gl.tensor(1.0, requires_grad=True)
    for _ in range(50_000):
        y = -y
    del y
    gc.collect()


def divided(a):
    """Two outputs, of which each may have a gradient or not."""

    def pullback(dhalf, dthird):
        calls.append((dhalf is None, dthird is None))
        parts = [d / n for d, n in ((dhalf, 2), (dthird, 3)) if d is not None]
        return (sum(parts[1:], parts[0]),)

    calls = divided.calls = []
    return (a / 2, a / 3), pullback


@pytest.mark.parametrize("used", [(True, True), (True, False), (False, True)])
def test_outputs_that_are_not_used_have_no_gradient(leaf, used):
    x = leaf((3,))
    outputs = apply(divided, x)
    parts = [o.sum() for o, wanted in zip(outputs, used, strict=True) if wanted]
    sum(parts[1:], parts[0]).backward()
    assert divided.calls == [(not used[0], not used[1])]
    np.testing.assert_allclose(gl.Tensor(x.grad).numpy(), np.full(3, used[0] / 2 + used[1] / 3))


def no_derivative(a):
    return a * 0 + 1, lambda dy: (None,)


def test_backward_of_several_goes_once_through_what_they_share(device, leaf):
    x, passes = leaf((3,)), []

    def doubled(x):
        return 2 * x, lambda d: passes.append(1) or (2 * d,)

    y = apply(doubled, x)
    a, b, g = y * 3, y.sum(), device.asarray(np.arange(3.0))
    fixed = gl.Tensor(g)
    backward([(a, g), (y, g), (y, g), (x, g), (fixed, g), (b, device.asarray(np.ones(())))])
    assert np.allclose(device.to_numpy(x.grad), 11 * device.to_numpy(g) + 2) and passes == [1] and fixed.grad is None
    with pytest.raises(TapeError, match="already ran through this graph"):
        backward([(a, g)])


def test_a_way_without_a_gradient(leaf):
    x, w = leaf((3,)), leaf((3,))
    y = x * 2
    z = apply(no_derivative, y)
    (z * w).sum().backward()
    assert x.grad is None and w.grad is not None
    with pytest.raises(TapeError):  # what came before is freed all the same
        y.sum().backward()


def test_outputs_of_integers_need_no_gradient(leaf):
    values, places = apply(lambda a: ((a + 0, a.argmax(axis=0).reshape(1)), lambda dy, _: (dy,)), leaf((3,)))
    assert values.requires_grad and not places.requires_grad


def test_only_leaves_keep_a_gradient(leaf):
    x = leaf((3,))
    y = x * 2
    z = y.sum()
    z.backward()
    assert y.grad is None and z.grad is None and x.grad is not None


def test_raw_arrays_numbers_and_none_are_inputs_too(device, leaf):
    weight = device.asarray(np.ones((4, 3)))
    for inputs in ((weight, None), (weight,)):  # an optional input that is None, and one that is left out
        x = leaf((2, 3))
        apply(functional.linear, x, *inputs).sum().backward()
        np.testing.assert_array_equal(device.to_numpy(x.grad), np.full((2, 3), 4.0))


# -- memory --------------------------------------------------------------------------------------------------
def test_pullbacks_are_freed_as_they_run():
    class Kept:
        pass

    order = []

    def step(a, name):
        kept = Kept()
        weakref.finalize(kept, order.append, f"{name} freed")

        def pullback(dy, kept=kept):
            order.append(f"{name} runs")
            return (dy * 1,)

        return a * 1, pullback

    x = gl.tensor([1.0], requires_grad=True)
    loss = apply(step, apply(step, x, name="first"), name="second")
    loss.backward()
    assert order == ["second runs", "second freed", "first runs", "first freed"]


def test_what_no_pullback_needs_is_not_held():
    x = gl.tensor(np.ones(3), requires_grad=True)
    y = x + 1
    held = weakref.ref(y.data)
    loss = (y + 1).sum()
    del y
    assert held() is None
    loss.backward()
    np.testing.assert_array_equal(x.grad, np.ones(3))


def every_alias(x):
    """Functions whose pullbacks answer with the cotangent itself or a view of it."""
    return {
        "add": lambda: x + 0.0,
        "reshape": lambda: x.reshape(-1).reshape(x.shape),
        "transpose": lambda: x.transpose(1, 0).T,
        "concatenate": lambda: gl.concatenate([x, x])[: x.shape[0]],
        "stack": lambda: gl.stack([x, x])[0],
        "no dropout": lambda: apply(functional.dropout, x, rate=0.0, seed=1),
        "leaf itself": lambda: x,
    }


@pytest.mark.parametrize("name", every_alias(gl.tensor([[1.0]])))
def test_grad_is_memory_of_its_own(device, leaf, name):
    x = leaf((2, 3))
    given = device.asarray(np.ones((2, 3)))
    every_alias(x)[name]().backward(given)
    assert not device.xp.may_share_memory(x.grad, given)
    assert x.grad.flags.c_contiguous and x.grad.dtype == x.dtype
    before = device.to_numpy(x.grad).copy()
    given += 5
    np.testing.assert_array_equal(device.to_numpy(x.grad), before)
    x.grad += 1  # and may be written to


def test_two_leaves_do_not_share_a_gradient(device, leaf):
    x, y, z = leaf((2, 3)), leaf((2, 3)), leaf((2, 3))
    (x + y + z).sum().backward()
    for a, b in ((x, y), (y, z), (x, z)):
        assert not device.xp.may_share_memory(a.grad, b.grad)
    x.grad += 1
    np.testing.assert_array_equal(device.to_numpy(y.grad), np.ones((2, 3)))


def twice(a, b):
    """2 (a + b) by its gradients, which are one array."""

    def pullback(dy):
        both = dy * 2
        return both, both

    return 2 * (a + b), pullback


def test_grad_that_grows_changes_no_gradient_under_way(device, leaf):
    x = leaf((3,))
    older, newer = x * 1, x * 3
    # x.grad comes first from twice, then from newer, while what twice gave to older waits.
    (apply(twice, x, older) + newer).sum().backward()
    np.testing.assert_array_equal(device.to_numpy(x.grad), np.full(3, 2.0 + 3 + 2))


def test_the_same_new_array_for_two_leaves_is_parted(device, leaf):
    x, y = leaf((3,)), leaf((3,))
    apply(twice, x, y).sum().backward()
    assert not device.xp.may_share_memory(x.grad, y.grad)


def test_a_new_gradient_is_taken_over_and_laid_out_in_c_order(leaf):
    made = []

    def turned(a, b):
        def pullback(dy):
            made[:] = dy * 2, (dy * 3).T
            return tuple(made)

        return 2 * a + 3 * b.T, pullback

    x, y = leaf((2, 3)), leaf((3, 2))
    apply(turned, x, y).sum().backward()
    assert x.grad is made[0]  # no copy of what nobody else has
    assert not made[1].flags.c_contiguous and y.grad.flags.c_contiguous and y.grad.shape == (3, 2)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2, 3), (0, 3)])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_gradients_of_reductions_may_be_written_to(leaf, shape, name):
    x = leaf(shape)
    getattr(x, name)().backward()
    x.grad += 1
    x.grad[...] = 0
    assert x.grad.shape == shape and x.grad.dtype == np.float64


def test_backward_adds_to_grad_in_place(device, leaf):
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    first = x.grad
    (3 * x).sum().backward()
    assert x.grad is first
    np.testing.assert_array_equal(device.to_numpy(x.grad), [5, 7])
    x.grad = None
    (3 * x).sum().backward()
    np.testing.assert_array_equal(device.to_numpy(x.grad), [3, 3])


def test_gradients_are_arrays_also_without_an_axis(device, leaf):
    x = leaf(2.0)
    (x * x + x).backward()
    assert isinstance(x.grad, device.xp.ndarray) and x.grad.shape == ()
    x.grad *= 2
    assert float(x.grad) == 10


# -- backward, misused ---------------------------------------------------------------------------------------
def test_a_second_backward_is_refused_before_anything_changes(leaf):
    x, w = leaf((3,)), leaf((3,))
    shared = x * 2
    first, second = shared.sum(), (shared * w).sum()
    first.backward()
    before = gl.Tensor(x.grad).numpy().copy()
    with pytest.raises(TapeError, match=r"backward\(\) already ran through .* and freed it, here a sum; detach"):
        first.backward()
    with pytest.raises(TapeError, match=r"call backward once on the sum of the losses.*retain_graph=True"):
        second.backward()
    assert w.grad is None
    np.testing.assert_array_equal(gl.Tensor(x.grad).numpy(), before)
    assert issubclass(TapeError, GpulstmError) and issubclass(TapeError, RuntimeError)


def test_backward_says_what_it_wants(device, leaf):
    x = leaf((2, 3))
    with pytest.raises(ShapeError, match=r"expected one element or a gradient, got shape \(2, 3\) without one"):
        (x * 2).backward()
    with pytest.raises(ShapeError, match=r"gradient: expected \(2, 3\), the tensor's shape, got \(3,\)"):
        (x * 2).backward(device.xp.ones(3))
    with pytest.raises(DTypeError, match="gradient: expected float64, the tensor's type, got float32"):
        (x * 2).backward(device.xp.ones((2, 3), np.float32))
    for constant in (leaf((2, 3), requires_grad=False), x.detach(), leaf((2,), requires_grad=False) + 1):
        with pytest.raises(TapeError, match="expected a tensor that requires_grad"):
            constant.sum().backward()
    assert x.grad is None


def test_backward_takes_numbers_tensors_and_arrays(device, leaf):
    for gradient in (2, 2.0, gl.Tensor(device.asarray(np.array(2.0))), device.asarray(np.array(2.0))):
        x = leaf(3.0)
        (x * x).backward(gradient)
        assert float(x.grad) == 12
    x = leaf([3.0])
    (x * x).backward()  # one element, one axis
    assert device.to_numpy(x.grad).tolist() == [6]


def test_a_wrong_pullback_is_named(leaf):
    def wrong_shape(a):
        return a.sum(axis=0), lambda dy: (dy,)

    def wrong_type(a):
        return a * 1, lambda dy: (dy.astype(np.float32),)

    def too_few(a, b):
        return a * b, lambda dy: (dy,)

    for fn, inputs, message in (
        (wrong_shape, 1, r"pullback of wrong_shape: expected gradient 0 \(\(2, 3\), .*float64.*\), got \(\(3,\)"),
        (wrong_type, 1, "pullback of wrong_type: expected gradient 0 .*float64.*, got .*float32"),
        (too_few, 2, "pullback of too_few: expected 2 gradients, got 1"),
    ):
        y = apply(fn, *(leaf((2, 3)) for _ in range(inputs)))
        with pytest.raises(ShapeError, match=message):
            y.sum().backward()


# -- requires_grad -------------------------------------------------------------------------------------------
def test_requires_grad_is_for_floats_and_leaves(device, leaf):
    counts = device.asarray(np.array([1, 2]))
    with pytest.raises(DTypeError, match=r"requires_grad: expected one of float32, .* got int64"):
        gl.Tensor(counts, requires_grad=True)
    t = gl.Tensor(counts)
    with pytest.raises(DTypeError, match="got int64"):
        t.requires_grad = True
    made = leaf((2,)) * 2
    with pytest.raises(TapeError, match="expected a leaf, got the result of an operation"):
        made.requires_grad = False
    with pytest.raises(DTypeError, match="got list"):
        gl.Tensor([1.0])


def test_a_frozen_leaf_has_no_gradient(leaf):
    x, w = leaf((3,)), leaf((3,))
    w.requires_grad = False
    (x * w).sum().backward()
    assert w.grad is None and x.grad is not None
    w.requires_grad = True
    (x * w).sum().backward()
    assert w.grad is not None


# -- devices -------------------------------------------------------------------------------------------------
def test_tensors_on_different_devices_are_named(emulated):
    here, there = gl.tensor([1.0, 2.0], requires_grad=True), gl.tensor([1.0, 2.0], device="cuda")
    other = gl.tensor([1.0, 2.0], device="cuda:1")
    with pytest.raises(DeviceError, match=r"^b: expected cpu, the device of a, got cuda:0; move it with gl.tensor"):
        here + there
    with pytest.raises(DeviceError, match=r"^a: expected cpu, the device of b, got cuda:0"):
        there + here  # what is learnt is where it should be
    with pytest.raises(DeviceError, match=r"^b: expected cuda:0, the device of a, got cuda:1"):
        there * other
    with pytest.raises(DeviceError, match=r"^gradient: expected cpu, the device of data, got cuda:0"):
        (here * 2).backward(there)


def test_functions_and_pullbacks_run_on_the_device_of_their_inputs(emulated):
    """The stand-in, as CuPy does, refuses arrays that are not on the current device."""
    for name in ("cuda:1", "cuda:0"):
        x = gl.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, device=name)
        y = ((x @ x.T + x)[[0, 0]] ** 2).mean()
        y.backward()
        assert x.grad.device.id == int(name[-1]) and x.device == name
        (x + 1).backward(gl.Tensor(x.grad))
        assert x.grad.device.id == int(name[-1])


def test_each_pullback_runs_on_its_own_device(emulated):
    """A function may take a tensor to another device; what came before goes backwards on the first one."""
    backends = [gl.device(f"cuda:{k}").backend for k in range(2)]

    def moved(a):
        with backends[1]:
            return backends[1].asarray(a), lambda dy: (backends[0].asarray(dy),)

    x = gl.tensor([1.0, 2.0], requires_grad=True, device="cuda:0")
    y = apply(moved, x * 2)
    ((y * 3).sum() + y.sum()).backward()
    assert y.device == "cuda:1" and x.grad.device.id == 0
    np.testing.assert_array_equal(backends[0].to_numpy(x.grad), [8, 8])

    w = gl.tensor([1.0, 2.0], requires_grad=True)
    apply(lambda a: (backends[0].asarray(a), lambda dy: (backends[0].to_numpy(dy),)), w * 2).sum().backward()
    np.testing.assert_array_equal(w.grad, [2, 2])


# -- element types -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_numbers_take_the_tensors_type(device, dtype):
    dtype = gl.as_dtype(dtype)
    x = gl.Tensor(device.asarray(np.ones((2, 2), dtype)), requires_grad=True)
    for y in (
        x + 1.5,
        1.5 - x,
        x * 2,
        2 / x,
        x / 3.0,
        x**2,
        x**0.5,
        2.0**x,
        -x,
        np.float64(1.5) * x,
        x * np.int64(3),
    ):
        assert y.dtype == dtype
        x.grad = None
        y.sum().backward()
        assert x.grad.dtype == dtype
    assert x.mean().dtype == x.sum(axis=0).dtype == (x @ x).dtype == x[0].dtype == dtype


def test_two_floating_types_do_not_mix(leaf):
    with pytest.raises(DTypeError, match="add: expected one dtype, got float32 and float64; convert one"):
        leaf((2,), np.float32) + leaf((2,))
    with pytest.raises(DTypeError, match="b: expected float64 as a has, got float32"):
        leaf((2, 2)) @ leaf((2, 2), np.float32)


def test_arrays_on_either_side(device, leaf):
    x, ones = leaf((3,)), device.xp.ones(3)
    for y in (
        ones * x,
        x * ones,
        ones + x,
        x - ones,
        ones - x,
        ones / x,
        x**ones,
        ones**x,
        ones @ x,
        x @ ones,
    ):
        assert isinstance(y, gl.Tensor) and y.requires_grad
    matrix = device.xp.ones((2, 3))
    assert (matrix @ x).shape == (2,) and (matrix * x).shape == (2, 3)
    for y in (np.float64(2) * x, np.float32(2) + x, np.int64(2) - x, 2 / x):
        assert isinstance(y, gl.Tensor) and y.requires_grad and y.dtype == np.float64
    with pytest.raises(DTypeError, match="NoneType"):
        x + None


# -- what a tensor is like -----------------------------------------------------------------------------------
def test_facts(device):
    x = gl.Tensor(device.asarray(np.arange(6.0).reshape(2, 3)), requires_grad=True)
    assert (x.shape, x.ndim, x.size, x.dtype, x.device) == ((2, 3), 2, 6, np.float64, device.name)
    assert len(x) == 2 and [row.numpy().tolist() for row in x] == [[0, 1, 2], [3, 4, 5]]
    assert x[1, 2].item() == 5.0 and float(x[1, 1]) == 4.0 and bool(x[0, 1]) and not x[0, 0]
    assert isinstance(x.numpy(), np.ndarray) and x.T.shape == (3, 2)
    assert x[0].requires_grad and not x.detach().requires_grad and x.detach().data is x.data
    for many in (x, x[:0]):
        with pytest.raises(ShapeError, match=r"item: expected a tensor of one element, got shape \(\d, 3\)"):
            many.item()
    for function in (len, list):
        with pytest.raises(TypeError):
            function(x.sum())
    with pytest.raises(ShapeError):
        bool(x)


def test_repr_shows_values_type_and_device(device):
    x = gl.Tensor(device.asarray(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)), requires_grad=True)
    want = f"Tensor([[1., 2.],\n        [3., 4.]], dtype=float32, device={device.name}, requires_grad=True)"
    assert repr(x) == want
    assert repr(x.detach()) == want.replace(", requires_grad=True", "")
    assert len(repr(gl.Tensor(device.xp.zeros((100, 100))))) < 1000


def test_indexing_with_tensors(device, leaf):
    x, ids = leaf((4, 3)), gl.Tensor(device.asarray(np.array([3, 0, 3])))
    x[ids].sum().backward()
    np.testing.assert_array_equal(device.to_numpy(x.grad)[:, 0], [1, 0, 0, 2])
    assert x[ids, 1].shape == (3,)


# -- gl.tensor -----------------------------------------------------------------------------------------------
def test_tensor_of_lists_and_numbers():
    assert gl.tensor([1.0, 2.0]).dtype == gl.tensor(1.5).dtype == np.float32
    assert gl.tensor([1, 2]).dtype == np.int64 and gl.tensor([True]).dtype == np.bool_
    assert gl.tensor([1, 2], dtype="float64").dtype == np.float64
    assert gl.tensor([1, 2], dtype=np.int32).dtype == gl.tensor([1, 2], dtype="int32").dtype == np.int32
    assert gl.tensor([1, 2], dtype="bfloat16").dtype.name == "bfloat16"
    assert gl.tensor(np.float64(1)).dtype == np.float64  # NumPy's numbers keep their type
    assert gl.tensor([1.0], requires_grad=True).requires_grad


def test_tensor_shares_memory_and_stays_where_the_array_is(device):
    array = device.asarray(np.ones(3))
    assert gl.tensor(array).data is array and gl.tensor(gl.tensor(array)).data is array
    assert gl.tensor(array).device == device.name
    assert gl.tensor(array, dtype="float32").dtype == np.float32


def test_tensor_moves_between_devices(emulated):
    there = gl.tensor([1.0, 2.0], device="cuda:1")
    assert there.device == "cuda:1" and gl.tensor(there).data is there.data
    assert gl.tensor(there, device="cpu").numpy().tolist() == [1, 2]
    assert gl.tensor(gl.tensor([1.0]), device="cuda").device == "cuda:0"
    assert gl.tensor(there, device="cuda").device == "cuda:0"


def test_arrays_of_other_libraries_on_a_gpu(emulated):
    class Other:
        """What a library shows of its memory on a GPU."""

        def __init__(self, array, *names):
            for name in names:
                setattr(self, name, getattr(array, name))

    array = gl.tensor([1.0, 2.0], device="cuda").data
    by_interface = gl.tensor(Other(array, "__cuda_array_interface__"))
    by_dlpack = gl.tensor(Other(array, "__dlpack__", "__dlpack_device__"))
    array[0] = 5
    assert by_interface.device == by_dlpack.device == "cuda:0"
    assert by_interface.numpy().tolist() == by_dlpack.numpy().tolist() == [5, 2]


@pytest.mark.oracle
def test_torchs_tensors_share_their_memory():
    import torch

    theirs = torch.ones(2, 3)
    ours = gl.tensor(theirs)
    theirs[0, 0] = 7
    assert ours.numpy()[0, 0] == 7
    weight = gl.tensor(np.ones((4, 3), np.float32), requires_grad=True)
    apply(functional.linear, theirs, weight, None).sum().backward()
    assert weight.grad[0].tolist() == [8, 2, 2]
    assert (weight * torch.ones(3)).shape == (4, 3)


def test_raw_arrays_that_are_none_are_named():
    x = gl.tensor([1.0, 2.0])
    for given, words in (
        ([1, 2], "expected a NumPy or CuPy array, got list"),
        (np.ma.masked_array([1.0]), "expected a plain"),
    ):
        for take in (gl.Tensor, lambda data: setattr(x, "data", data)):
            with pytest.raises(DTypeError, match=f"^data: {words}"):
                take(given)
    with pytest.raises(TypeError, match=r"Tensor\.max\(\) got an unexpected keyword argument 'dim'"):
        x.max(dim=0)
