"""``backward(retain_graph=True)``: every pullback may run again, and gives the same bits."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.cells import CELLS
from gpulstm.tape import TapeError, apply


def check_again(loss, leaves, device):
    """A second backward gives the same bits, a third, which frees the tape, too; a fourth is refused."""
    value, first = loss(), []
    for times in (1, 2, 3):
        for leaf in leaves:
            leaf.grad = None
        value.backward(retain_graph=times < 3)
        for k, leaf in enumerate(leaves):
            got = device.to_numpy(leaf.grad)
            if times == 1:
                first.append(got.copy())
                assert np.isfinite(got).all() and got.any(), k
            np.testing.assert_array_equal(got, first[k], err_msg=f"gradient {k}, time {times}")
    with pytest.raises(TapeError, match=r"backward\(\) already ran through this graph and freed it"):
        value.backward()


def tensors(device, *shapes, dtype="float32"):
    rng = np.random.default_rng(1)
    arrays = (rng.standard_normal(shape).astype(gl.as_dtype(dtype)) for shape in shapes)
    return [gl.Tensor(device.asarray(array), requires_grad=True) for array in arrays]


LAYERS = {name: {"cell": name} for name in CELLS} | {
    "reference": {"cell": "lstm", "path": "reference"},
    "two bidirectional levels": {"cell": "lstm", "num_layers": 2, "bidirectional": True, "dropout": 0.5},
    "product of directions": {"cell": "gru", "bidirectional": True, "merge": "mul"},
    "projected": {"cell": "lstm", "proj_size": 2},
    "recomputed": {"cell": "lstm", "recompute": True},
    "noisy": {"cell": "lstm", "regularize": [gl.Zoneout(0.3, 0.2), gl.VariationalDropout(input=0.2, recurrent=0.2),
                                             gl.WeightDrop(0.3)]},
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers(device, name, dtype):
    options = {"device": device.name, "dtype": dtype, "generator": np.random.default_rng(0)}
    layer = gl.Recurrent(input_size=3, hidden_size=4, **LAYERS[name], **options)
    (x,) = tensors(device, (5, 2, 3), dtype=dtype)

    def loss():
        output, states = layer(x, lengths=[5, 3])
        states = states if isinstance(states, tuple) else (states,)
        return (output * output).sum() + sum((state * 2).sum() for state in states)

    check_again(loss, [x, *layer.parameters()], device)


def test_cells(device):
    cell = gl.LSTMCell(3, 4, device=device.name)
    (x,) = tensors(device, (2, 3))

    def loss():
        h, c = cell(x)
        h, c = cell(x, (h, c))
        return (h * c).sum()

    check_again(loss, [x, *cell.parameters()], device)


@pytest.mark.parametrize("kind", ["additive", "dot", "general", "concat", "scaled_dot"])
def test_attention(device, kind):
    layer = gl.Attention(4, 4, kind=kind, device=device.name)
    query, keys = tensors(device, (2, 4), (5, 2, 4))

    def loss():
        context, weights = layer(query, keys, lengths=[5, 2])
        return (context * context).sum() + (weights * weights).sum()

    check_again(loss, [query, keys, *layer.parameters()], device)


def test_other_layers_and_losses(device):
    x, y = tensors(device, (6, 4), (6, 4))
    head = gl.Linear(4, 4, device=device.name)
    table = gl.Embedding(7, 4, device=device.name)
    ids = device.asarray(np.array([1, 2, 2, 6, 0, 1]))
    classes, chances = device.asarray(np.array([0, 3, -100, 1, 2, 2])), gl.sigmoid(y.detach())
    dropout = gl.Dropout(0.5)
    for reduction in ("mean", "sum"):
        for loss, leaves in (
            (lambda r=reduction: gl.mse(head(x), y, reduction=r), [x, y, *head.parameters()]),
            (lambda r=reduction: gl.huber(head(x), y, reduction=r), [x, y]),
            (lambda r=reduction: gl.cross_entropy(head(x), classes, reduction=r, label_smoothing=0.1), [x]),
            (
                lambda r=reduction: gl.linear_cross_entropy(
                    x, head.weight, classes, linear_bias=head.bias, reduction=r
                ),
                [x, *head.parameters()],
            ),
            (lambda r=reduction: gl.binary_cross_entropy_with_logits(x, chances, reduction=r), [x]),
            (lambda: (table(ids) * dropout(x)).sum(), [x, table.weight]),
        ):
            check_again(loss, leaves, device)


def test_functions_of_tensors(device):
    x, w = tensors(device, (3, 4), (4, 2))
    ids = gl.Tensor(device.asarray(np.array([0, 2, 2])))

    def loss():
        y = gl.tanh(x @ w) / (1.5 + gl.sigmoid(x @ w))
        z = gl.concatenate([y[ids], gl.stack([y[0], y[1]])]).softmax() - gl.maximum(y[0], 0.1)
        z = z.reshape(2, 5).T.max(axis=0) + z.min() + z.log_softmax(0).cumsum(0).mean() + (abs(y) + 1).sqrt().sum()
        return (gl.where(z > 0, z, z * 0.5) ** 3).astype("float64").sum() + y.clip(-0.5, 0.5).exp().sum().double()

    check_again(loss, [x, w], device)


def test_gradients_add_up(device):
    (x,) = tensors(device, (3,))
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(device.to_numpy(x.grad), 4 * device.to_numpy(x.data))


# -- the graph -----------------------------------------------------------------------------------------------
def test_two_losses_over_one_forward(device):
    x, w = tensors(device, (3,), (3,))
    shared = (x * w).exp()
    first, second = shared.sum(), (shared * 2).sum()
    first.backward(retain_graph=True)
    second.backward()
    total = device.to_numpy(x.grad)
    x.grad = None
    (3 * (x * w).exp()).sum().backward()
    np.testing.assert_allclose(total, device.to_numpy(x.grad), rtol=1e-6)
    with pytest.raises(TapeError, match="already ran"):
        first.backward()


def test_a_gradient_shares_no_memory_with_what_is_kept(device):
    (x,) = tensors(device, (3,))

    def keeps(a):
        slope = a * 2

        def pullback(dy):
            kept = slope
            kept *= 1
            return (kept,)

        return (a * a).sum(), pullback

    y = apply(keeps, x)
    y.backward(retain_graph=True)
    x.grad *= 100
    y.backward()
    np.testing.assert_allclose(device.to_numpy(x.grad), 202 * device.to_numpy(x.data), rtol=1e-6)


def serves_once(a):
    slopes = iter([2.0, 3.0])
    return 2 * a, lambda dy: (next(slopes) * dy,)


def test_the_check_sees_a_pullback_that_serves_once():
    backend = gl.device("cpu").backend
    (x,) = tensors(backend, (3,))
    with pytest.raises(AssertionError, match="gradient 0, time 2"):
        check_again(lambda: apply(serves_once, x).sum(), [x], backend)
