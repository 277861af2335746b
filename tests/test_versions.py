"""Writes in place: what they do, and that backward notices those that it would suffer from, and no others."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.cells.activation import Activation
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional import arithmetic, elementwise, rearrange, reductions
from gpulstm.functional.needs import needs_of
from gpulstm.tape import TapeError, apply, increment_version
from gpulstm.tape.versions import version_of

WRITTEN = "as it was when the loss was computed, but it was modified since"


@pytest.fixture
def leaf(device):
    """Makes a leaf on the device."""

    def make(values, dtype=np.float64, requires_grad=True):
        return gl.Tensor(device.asarray(np.asarray(values, dtype)), requires_grad)

    return make


# -- what each function's pullback needs ---------------------------------------------------------------------
A, B = np.array([[0.5, 1.5, 2.0]]), np.array([[1.0], [0.7]])
SQUARE, ROW = np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([0.2, -0.4])
TARGET = np.array([1, 0])
CALLS = {
    **{fn.__name__: (fn, (A, B), {}) for fn in (arithmetic.add, arithmetic.subtract, arithmetic.multiply,
                                                arithmetic.divide, arithmetic.power, elementwise.maximum,
                                                elementwise.minimum)},
    **{fn.__name__: (fn, (A,), {}) for fn in (arithmetic.negative, elementwise.exp, elementwise.log, elementwise.sqrt,
                                              elementwise.absolute, elementwise.tanh, elementwise.sigmoid,
                                              elementwise.relu, elementwise.copy, reductions.sum, reductions.mean,
                                              reductions.max, reductions.min, rearrange.transpose, rearrange.squeeze,
                                              functional.softmax, functional.log_softmax)},
    "max of an axis": (reductions.max, (SQUARE,), {"axis": 1}),
    "cumsum": (reductions.cumsum, (SQUARE,), {"axis": 1}),
    "clip": (elementwise.clip, (A,), {"min": 0.7, "max": 1.6}),
    "where": (elementwise.where, (A > 1, A, B), {}),
    "astype": (elementwise.astype, (A,), {"dtype": np.float32}),
    "move": (elementwise.move, (A,), {"device": "cpu"}),
    "matmul": (arithmetic.matmul, (SQUARE, SQUARE), {}),
    "matmul of a stack": (arithmetic.matmul, (SQUARE[None], SQUARE[None]), {}),
    "linear": (functional.linear, (SQUARE, SQUARE, ROW), {}),
    "index": (rearrange.index, (SQUARE,), {"key": (np.array([0, 0]),)}),
    "slice": (rearrange.index, (SQUARE,), {"key": (slice(1),)}),
    "reshape": (rearrange.reshape, (SQUARE,), {"shape": (4,)}),
    "expand_dims": (rearrange.expand_dims, (SQUARE,), {"axis": 0}),
    "concatenate": (rearrange.concatenate, (SQUARE, SQUARE), {}),
    "stack": (rearrange.stack, (SQUARE, SQUARE), {}),
    "dropout": (functional.dropout, (SQUARE,), {"rate": 0.5, "seed": 3}),
    "no dropout": (functional.dropout, (SQUARE,), {"rate": 0.0, "seed": 3}),
    "variational_dropout": (functional.variational_dropout, (SQUARE[None],), {"rate": 0.5, "seed": 3}),
    "layer_norm": (functional.layer_norm, (SQUARE, ROW, ROW), {}),
    "layer_norm alone": (functional.layer_norm, (SQUARE,), {}),
    "activation": (functional.activation, (SQUARE,), {"form": Activation("softplus")}),
    "gelu": (functional.gelu, (SQUARE,), {}),
    "gelu with tanh": (functional.gelu, (SQUARE,), {"approximate": "tanh"}),
    "embedding": (functional.embedding, (TARGET, SQUARE), {}),
    "mse": (functional.mse, (SQUARE, SQUARE.T), {}),
    "huber": (functional.huber, (SQUARE, SQUARE.T), {}),
    "cross_entropy": (functional.cross_entropy, (SQUARE, TARGET, np.array([0.3, 0.6])), {"label_smoothing": 0.1}),
    **{f"linear_cross_entropy, {reduction}": (functional.linear_cross_entropy, (SQUARE, SQUARE.T, TARGET, ROW),
                                              {"reduction": reduction}) for reduction in ("mean", "none")},
    "binary_cross_entropy": (functional.binary_cross_entropy_with_logits, (SQUARE, SQUARE.T), {}),
}  # fmt: skip


def garbled(fn, inputs, static, place):
    """The gradients after the input or output of this number is written over; None for one that is no array."""
    arrays = [np.array(x) for x in inputs]
    y, pullback = fn(*arrays, **static)
    dy = np.linspace(1, 2, y.size).reshape(y.shape).astype(y.dtype)
    if place is not None:
        target = arrays[place] if place >= 0 else y
        target[...] = 1 ^ target if target.dtype.kind in "bi" else 77
    return pullback(dy)


def check_needs(fn, inputs, static):
    """Every gradient is as it was after a write to what it is said not to need."""
    want, said = garbled(fn, inputs, static, None), needs_of(fn)
    count = len(inputs)
    everything = range(count)
    for place in (*everything, -1):
        users = said.outputs if place < 0 else everything if said.inputs is None else said.inputs.get(place, ())
        if said.view and place < 0:
            continue  # the memory of the input
        got = garbled(fn, inputs, static, place)
        for k in set(everything) - set(everything if users is None else users):
            if want[k] is not None:
                np.testing.assert_array_equal(got[k], want[k], err_msg=f"gradient {k} needs {place}")


@pytest.mark.parametrize("name", CALLS)
def test_what_is_said_to_be_needed_is_all_that_is_needed(name):
    check_needs(*CALLS[name])


def test_the_check_of_needs_sees_a_fault(monkeypatch):
    for name in ("multiply", "exp", "where", "linear", "embedding", "matmul of a stack"):
        fn, inputs, static = CALLS[name]
        monkeypatch.setattr(fn, "needs", fn.needs._replace(inputs={}, outputs=()))
        with pytest.raises(AssertionError, match="needs"):
            check_needs(fn, inputs, static)


# -- backward notices ----------------------------------------------------------------------------------------
def layers(device):
    rng = np.random.default_rng(0)
    with device:
        x = device.asarray(rng.standard_normal((4, 2, 3)).astype(np.float32))
        lstm, head = gl.LSTM(3, 4, generator=rng), gl.Linear(4, 1, generator=rng)
    lstm.to(device.name), head.to(device.name)
    parameters = [*lstm.parameters(), *head.parameters()]
    return lstm, head, parameters, lambda: (head(lstm(x)[0]) ** 2).mean()


WRITES = {
    "optimiser": lambda p, _: gl.SGD([p], lr=0.1).step(),
    "in place": lambda p, _: p.__imul__(0.5),
    "setitem": lambda p, _: p.__setitem__((0, 0), 0.0),
    "load_state_dict": lambda _, module: module.load_state_dict(module.state_dict()),
    "data in place": lambda p, _: setattr(p, "data", p.data),  # what p.data -= ... ends with
    "by a view": lambda p, _: gl.tensor(p.data)[:1].__iadd__(1.0),
    "detached": lambda p, _: p.detach().__isub__(1.0),
    "another type": lambda p, module: module.to("float64"),
    "noted": lambda p, _: increment_version(p),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_before_backward_is_noticed(device, name):
    lstm, _, parameters, loss = layers(device)
    loss().backward()
    before = [p.grad for p in parameters]
    value = loss()
    with gl.no_grad():
        WRITES[name](lstm.weight_hh_l0, lstm)
    with pytest.raises(
        TapeError, match=r"backward: recurrent needs its input arguments\[[23]\] \(16, [34]\) " + WRITTEN
    ):
        value.backward()
    if name != "another type":
        assert all(p.grad is grad for p, grad in zip(parameters, before, strict=True))  # nothing has changed
        loss().backward()


def test_adversarial_training_is_refused_or_right():
    _, _, parameters, loss = layers(gl.device("cpu").backend)
    optimizer = gl.Adam(parameters)
    first, second = loss(), loss()
    first.backward()
    optimizer.step()
    with pytest.raises(TapeError, match="an optimiser's step"):
        second.backward()


def test_names_of_what_was_written_to(leaf):
    w, x = leaf([[1.0, 2.0]]), leaf([[3.0, 4.0]])
    made = [(w * 2 * x, x, r"multiply needs its input b \(1, 2\)"), (w.exp(), None, r"exp needs its result \(1, 2\)")]
    for y, written, message in made:
        with gl.no_grad():
            target = y if written is None else written
            target += 1
        with pytest.raises(TapeError, match=message):
            y.sum().backward()
    y = apply(lambda a: (a * 2, lambda dy: (dy * 2,)), w)
    w.data = w.data
    with pytest.raises(TapeError, match=r"<lambda> needs its input a \(1, 2\)"):
        y.sum().backward()


# -- and refuses nothing else --------------------------------------------------------------------------------
def test_what_needs_no_values_goes_on_after_a_write(device, leaf):
    p, x = leaf([[1.0, 2.0]]), leaf([[3.0, 4.0]], requires_grad=False)
    parts = [p + x, p - 1, -p, p.reshape(2), p.T, p[0], p.sum(), p.mean(), gl.stack([p, p]), gl.concatenate([p, p])]
    parts += [p * 3, p / 2, p * x, p.astype("float32").astype("float64"), p.copy(), gl.mse(p, x), p.max()]
    loss = sum(part.sum() for part in parts)
    with gl.no_grad():
        p += 100
    loss.backward()
    assert np.isfinite(device.to_numpy(p.grad)).all()


def test_a_layer_whose_input_needs_no_gradient_may_be_updated():
    """As in PyTorch: the gradient of the weight needs x alone."""
    layer = gl.Linear(3, 2)
    loss = layer(np.ones((4, 3), np.float32)).sum()
    with gl.no_grad():
        layer.weight *= 2
    loss.backward()
    assert (layer.weight.grad == 4).all()


def test_usual_training_is_not_refused(device):
    lstm, _, parameters, loss = layers(device)
    optimizer = gl.Adam(parameters)
    for _ in range(3):
        (loss() / 2).backward()  # gradients accumulate
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
    states = None
    for _ in range(3):  # a carried state, detached
        output, states = lstm(gl.Tensor(device.xp.ones((4, 2, 3), np.float32)), states)
        states = tuple(state.detach() for state in states)
        output.mean().backward()
        optimizer.step()
    with gl.no_grad():
        for p in lstm.parameters():
            p -= 0.1 * gl.Tensor(p.grad)
    loss().backward()
    value = loss()
    lstm.weight_hh_l0.data = lstm.weight_hh_l0.data + 1  # another array: the old one is as it was
    value.backward()


def test_an_id_that_is_given_anew_has_a_version_of_its_own():
    array = np.ones(3)
    held, number, others = version_of(array), id(array), []
    del array
    while id(other := np.ones(3)) != number:
        others.append(other)
        assert len(others) < 10_000
    assert version_of(other) is not held and version_of(other) is version_of(other[1:])


def test_memory_that_is_used_again_has_a_version_of_its_own():
    """The pool gives the same addresses anew."""
    w = gl.tensor(np.ones((300, 300), np.float32), requires_grad=True)
    for _ in range(5):
        loss = (w * w.exp()).sum()
        loss.backward()
        with gl.no_grad():
            w *= 1.0
    assert version_of(np.ones(3)) is not version_of(np.ones(3))


def test_tensors_of_one_memory_share_their_version(device):
    array = device.xp.zeros((2, 3))
    t = gl.Tensor(array)
    views = [t.detach(), t.reshape(3, 2), t.T, t[0], t[:, 1:], gl.Tensor(array), gl.Tensor(array[1]), t.squeeze()]
    assert all(view.version is t.version for view in views)
    assert t.copy().version is not t.version and (t + 0).version is not t.version
    held = t.version
    t.data = device.xp.ones((2, 3))
    assert t.version is not held


# -- operators in place --------------------------------------------------------------------------------------
OPERATORS = {
    "+": lambda t, x: t.__iadd__(x),
    "-": lambda t, x: t.__isub__(x),
    "*": lambda t, x: t.__imul__(x),
    "/": lambda t, x: t.__itruediv__(x),
    "**": lambda t, x: t.__ipow__(x),
    "@": lambda t, x: t.__imatmul__(x),
}


@pytest.mark.parametrize("sign", OPERATORS)
def test_they_write_into_the_parameter(device, leaf, sign):
    values, other = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[2.0, 0.5], [1.0, 2.0]])
    want = eval(f"a {sign} b", {"a": values, "b": other})
    for b in (leaf(other), leaf(other, requires_grad=False), device.asarray(other)):
        p = leaf(values.copy())
        array = p.data
        with gl.no_grad():
            assert OPERATORS[sign](p, b) is p
        assert p.data is array and p.requires_grad and p.is_leaf
        np.testing.assert_allclose(device.to_numpy(array), want)
        with pytest.raises(
            TapeError, match=rf"t \{sign[0]}.*= x: expected a tensor that requires no gradient, got a leaf"
        ):
            OPERATORS[sign](p, b)
        np.testing.assert_allclose(device.to_numpy(array), want)


def test_a_layer_keeps_its_parameter():
    layer = gl.Linear(3, 1)
    weight, before = layer.weight, layer.weight.data.copy()
    with gl.no_grad():
        layer.weight *= 0.5
        layer.bias[...] = 3
        layer.weight[0, 1:] = np.array([7, 8], np.float32)
    assert layer.weight is weight and list(layer.state_dict()) == ["weight", "bias"]
    assert layer.weight.tolist() == [[before[0, 0] / 2, 7, 8]] and layer.bias.tolist() == [3]


def test_types_and_shapes_are_kept(device):
    half, counts = gl.Tensor(device.xp.ones((2, 3), np.float16)), gl.Tensor(device.xp.ones(3, np.int32))
    write, add = type(half).__setitem__, type(half).__iadd__
    half += 1
    half *= counts
    half[0] = counts
    counts += 2
    counts[1] = True
    assert half.dtype == np.float16 and counts.dtype == np.int32 and counts.tolist() == [3, 1, 3]
    wide, column = gl.Tensor(device.xp.ones((2, 3))), gl.Tensor(device.xp.ones((2, 1), np.float16))
    for error, message, function, *arguments in (
        (
            DTypeError,
            r"/= x: expected a result of int32, the dtype of t, got float64; use t",
            type(half).__itruediv__,
            counts,
            2,
        ),
        (DTypeError, r"t \+= x: expected a result of int32.*got float64", add, counts, 0.5),
        (DTypeError, r"t \+= x: expected a result of int32.*got int64", add, counts, counts.astype("int64")),
        (DTypeError, "add: expected one dtype, got float16 and float64", add, half, wide),
        (ShapeError, r"t \+= x: expected a result of shape \(2, 1\), the shape of t, got \(2, 3\)", add, column, half),
        (
            DTypeError,
            r"t\[\.\.\.\] = value: expected a value that int32 can hold, got float 0.5",
            write,
            counts,
            0,
            0.5,
        ),
        (DTypeError, "expected a value that int32 can hold, got int 2147483648", write, counts, 0, 2**31),
        (DTypeError, "expected a value that int32 can hold, got float16", write, counts, ..., half[0]),
        (DTypeError, "expected a value that float16 can hold, got float64", write, half, ..., wide),
        (DTypeError, "expected an array or a number, got str", write, half, 0, "1"),
        (ShapeError, r"t\[\.\.\.\] = value: .*broadcast", write, half, 0, half[0, :2]),
        (IndexError, "out of bounds", write, half, 2, 1),
    ):
        with pytest.raises(error, match=message):
            function(*arguments)
    assert counts.tolist() == [3, 1, 3] and float(half.max()) == 2


def test_read_only_arrays_are_named():
    array = np.ones(3)
    array.flags.writeable = False
    t = gl.Tensor(array)
    for write in (lambda: t.__iadd__(1), lambda: t.__setitem__(0, 2)):
        with pytest.raises(DTypeError, match="expected a writable array, got a read-only one; copy it"):
            write()


def test_what_is_recorded_is_computed_anew(device, leaf):
    """``loss += part`` while recording: the same object, as after ``loss = loss + part``."""
    x, total = leaf([1.0, 2.0]), leaf(0.0, requires_grad=False)
    array, same = total.data, total
    for k in range(3):
        total += (x * k).sum()
    assert total is same and total.requires_grad and not total.is_leaf and float(array) == 0
    total *= 2
    total.backward()
    assert device.to_numpy(x.grad).tolist() == [6, 6] and total.item() == 18
    y = x.exp()
    z = y * 3
    y += 1  # what exp needs is left as it was
    (y + z).sum().backward()
    np.testing.assert_allclose(device.to_numpy(x.grad), 6 + 4 * np.exp([1, 2]))


def test_writes_that_the_tape_would_miss_are_refused(device, leaf):
    x, plain = leaf([[1.0, 2.0]]), leaf([[1.0, 2.0]], requires_grad=False)
    y = x * 2
    for target, value in ((x, 1.0), (y, 1.0), (plain, y), (plain, x)):
        with pytest.raises(
            TapeError, match=r"t\[\.\.\.\] = value: expected tensors that require no gradient.*gl.stack"
        ):
            target[0] = value
    for view in (y[0], y.T, y.reshape(2), y.squeeze(0), apply(lambda a: (a, lambda dy: (dy,)), y)):
        with pytest.raises(TapeError, match=r"t \+= x: expected a tensor that owns its memory, got a view"):
            view += 1
    for own in (y[[0]], y[y > 0], gl.Dropout(0.5)(y), apply(lambda a: (a + 1, lambda dy: (dy,)), y)):
        own += 1
    with gl.no_grad():
        plain[0] = y[0]
        plain[:, gl.Tensor(device.asarray(np.array([1])))] = 7
    assert plain.tolist() == [[2, 7]] and y.tolist() == [[2, 4]] and x.tolist() == [[1, 2]]


def test_arrays_on_other_devices_are_not_written(emulated):
    t = gl.tensor([1.0, 2.0], device="cuda")
    with pytest.raises(gl.DeviceError):
        t[...] = gl.tensor([1.0, 1.0])
    t[[1, 0]] = gl.tensor([5.0, 6.0], device="cuda")
    assert t.tolist() == [6, 5]


# -- data and grad -------------------------------------------------------------------------------------------
def test_what_is_assigned_to_data_and_grad_is_checked(device, leaf):
    x = leaf([1.0, 2.0])
    like = device.asarray(np.array([3.0, 4.0]))
    for name in ("data", "grad"):
        for wrong, error, message in (
            (device.xp.ones(3), ShapeError, rf"{name}: expected \(2,\)"),
            ([1.0, 2.0], DTypeError, "list"),
            (gl.Tensor(like), DTypeError, f"{name}: expected a raw array, got a Tensor; pass its .data"),
        ):
            with pytest.raises(error, match=message):
                setattr(x, name, wrong)
    with pytest.raises(DTypeError, match="grad: expected float64, the tensor's type, got float32"):
        x.grad = like.astype(np.float32)
    with pytest.raises(DTypeError, match=r"data: expected float32, .*because this tensor requires .*got int64"):
        x.data = like.astype(np.int64)
    x.grad, x.data = like, like
    assert x.grad is like and x.data is like
    x.grad = None
    x.data = like.astype(np.float32)
    assert x.dtype == np.float32
    with pytest.raises(TapeError, match=r"data: expected float32 on .* for the result of an operation, got float64"):
        (x * 2).data = like
    with pytest.raises(AttributeError):
        x.gard = like


def test_a_leaf_that_changed_its_type_is_named(leaf):
    x = leaf([1.0, 2.0])
    y = x + 1
    x.data = x.data.astype(np.float32)
    with pytest.raises(TapeError, match="backward: expected a leaf of float64, as in the forward pass, got float32"):
        y.sum().backward()
