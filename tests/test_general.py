"""ONNX' LSTM: which other cells it contains, every activation in every place, onnxruntime beside it, bad options."""

import numpy as np
import pytest

from gpulstm import functional
from gpulstm.backend import CPU
from gpulstm.cells import activation, coupled, general, peephole
from gpulstm.errors import ShapeError
from tests.conftest import require
from tests.first_principles import general as first_principles
from tests.first_principles import sequence
from tests.tolerances import STEP, assert_close

T, B, D, H = 5, 3, 2, 4
NAMES = ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "weight_ch")
MODES = {"lengths": [5, 0, 3], "zoneout": (functional.Noise(0.3, 5), functional.Noise(0.4, 6))}
DEFAULTS = ("sigmoid", "tanh", "tanh")
# Parameters unlike the usual ones; all within what keeps a step from growing without end.
PARAMETERS = {
    "affine": (0.4, 0.3), "leaky_relu": (0.3,), "thresholded_relu": (0.2,), "scaled_tanh": (0.7, 1.2),
    "hard_sigmoid": (0.3, 0.4), "elu": (0.7,),
}  # fmt: skip


@pytest.fixture
def arrays(rng):
    """x, h0, c0, w_ih, w_hh, b_ih, b_hh, and weight_ch (3H,)."""
    shapes = ((T, B, D), (B, H), (B, H), (4 * H, D), (4 * H, H), (4 * H,), (4 * H,), (3 * H,))
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.fixture
def cotangents(rng):
    return [rng.standard_normal(shape) for shape in ((T, B, H), (B, H), (B, H))]


def run(device, cell, arrays, cotangents, extra=(), path="auto", modes=MODES):
    """(outputs, gradients), on the host."""
    given = [None if a is None else device.asarray(a) for a in (*arrays, None, *extra)]
    with device:
        outputs, pullback = functional.recurrent(*given, cell=cell, path=path, **modes)
        gradients = pullback(*map(device.asarray, cotangents))
    return [[device.to_numpy(a) for a in group if a is not None] for group in (outputs, gradients)]


def assert_all_close(got, want):
    for number, (a, b) in enumerate(zip(got, want, strict=True)):
        assert_close(a, b, name=f"number {number}")


# -- the cells it contains --------------------------------------------
def test_by_default_it_is_the_lstm(device, arrays, cotangents):
    *arrays, _ = arrays
    got, gradients = run(device, general.cell(), arrays, cotangents)
    want, wanted = run(device, "lstm", arrays, cotangents)
    assert_all_close(got, want)
    assert_all_close(gradients, wanted)


def test_with_peepholes_it_is_the_diagonal_peephole_lstm(device, arrays, cotangents):
    *arrays, weight_ch = arrays
    got, gradients = run(device, general.cell(peepholes=True), arrays, cotangents, [weight_ch])
    want, wanted = run(device, peephole.cell(), arrays, cotangents, [weight_ch])
    assert_all_close(got, want)
    assert_all_close(gradients, wanted)


def test_coupled_it_is_the_coupled_lstm_with_the_sign_of_i_reversed(device, arrays, cotangents):
    *arrays, _ = arrays
    states, weights = arrays[:3], arrays[3:]
    got, gradients = run(device, general.cell(coupled=True), arrays, cotangents)
    three = [np.concatenate([-weight[:H], weight[2 * H :]]) for weight in weights]  # f from i, g, o
    want, wanted = run(device, coupled.CELL, [*states, *three], cotangents)
    assert_all_close(got, want)
    assert_all_close(gradients[:3], wanted[:3])
    for gradient, d in zip(gradients[3:], wanted[3:], strict=True):
        assert_close(gradient, np.concatenate([-d[:H], np.zeros_like(d[:H]), d[H:]]))


def test_the_identity_in_place_of_tanh_gives_h_as_o_times_c(device, arrays, cotangents):
    *arrays, _ = arrays
    cell = general.cell(("sigmoid", "tanh", ("affine", 1.0, 0.0)))
    (y, _, _), _ = run(device, cell, arrays, cotangents, modes={})
    with device:
        traced = functional.trace(*map(device.asarray, arrays), cell=cell)
    assert_close(y, device.to_numpy(traced["o"] * traced["c"]))


# -- activations, clipping, peepholes and coupling in all ways --------
def specs(*names):
    return tuple((name, *PARAMETERS.get(name, ())) for name in names)


FORMS = {  # name: activations, clip, peepholes, coupled
    "plain": (specs("hard_sigmoid", "relu", "softsign"), None, False, False),
    "clip": (specs("softsign", "thresholded_relu", "elu"), 0.9, False, False),
    "peepholes": (specs("scaled_tanh", "leaky_relu", "softplus"), None, True, False),
    "all": (specs("affine", "tanh", "sigmoid"), 0.9, True, True),
}


def test_every_activation_is_in_one_of_the_forms():
    assert {name for acts, *_ in FORMS.values() for name, *_ in acts} == set(activation.NAMES)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_first_principles(device, arrays, cotangents, rng, form):
    *arrays, weight_ch = arrays
    acts, clip, peepholes, coupled = FORMS[form]
    extra = [weight_ch] if peepholes else []
    options = {"activations": acts, "coupled": coupled} | ({} if clip is None else {"clip": clip})
    alive = np.arange(T)[:, None] < np.array(MODES["lengths"])

    def principled(x, h0, c0, *weights):
        named = {"gates": 4, **dict(zip(NAMES, (*weights[:4], None, *weights[4:]), strict=False))}
        return sequence.run(
            first_principles.step,
            x,
            [h0, c0],
            named,
            alive=alive,
            zoneout=MODES["zoneout"],
            names=("h", "c"),
            **options,
        )

    given = [0.5 * a for a in (*arrays, *extra)]
    cell = general.cell(acts, clip, peepholes, coupled)
    got, gradients = run(device, cell, given[:7], cotangents, given[7:])
    assert_all_close(got, principled(*given))

    def loss(k, change):
        outputs = principled(*given[:k], given[k] + change, *given[k + 1 :])
        return sum((output * d).sum() for output, d in zip(outputs, cotangents, strict=True))

    for k, gradient in enumerate(gradients):
        direction = rng.standard_normal(given[k].shape)
        numeric = (loss(k, STEP * direction) - loss(k, -STEP * direction)) / (2 * STEP)
        assert abs((gradient * direction).sum() - numeric) <= 1e-7 * max(1.0, np.abs(gradient).sum()), f"number {k}"


def test_what_is_clipped_has_no_gradient(device, arrays, cotangents):
    *arrays, weight_ch = arrays
    arrays[5] = np.full(4 * H, 50.0)  # b_ih: every pre-activation is beyond 1
    cell = general.cell(clip=1.0, peepholes=True)
    (_, _, c), (dx, dh0, dc0, *dweights) = run(device, cell, arrays, cotangents, [weight_ch], modes={})
    for gradient in (dx, dh0, *dweights):
        assert not gradient.any()
    sigmoid = 1 / (1 + np.exp(-1.0))
    want = arrays[2]
    for _ in range(T):
        want = sigmoid * want + sigmoid * np.tanh(1.0)
    assert_close(c, want)
    assert dc0.all(), "the way from c to c has no activation"


# -- onnxruntime ------------------------------------------------------
def onnxruntime_lstm(arrays, weight_ch, attributes):
    """(y, h_n, c_n) of onnxruntime for the arguments of ``recurrent``, in float32."""
    onnx, runtime = require("onnx"), require("onnxruntime")

    def reordered(rows):  # i, f, g, o -> i, o, f, c
        i, f, g, o = np.split(rows, 4)
        return np.concatenate([i, o, f, g])

    x, h0, c0, w_ih, w_hh, b_ih, b_hh = arrays
    p_i, p_f, p_o = np.split(weight_ch, 3)
    feeds = {
        "X": x, "W": reordered(w_ih)[None], "R": reordered(w_hh)[None],
        "B": np.concatenate([reordered(b_ih), reordered(b_hh)])[None],
        "initial_h": h0[None], "initial_c": c0[None], "P": np.concatenate([p_i, p_o, p_f])[None],
    }  # fmt: skip
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    inputs = ["X", "W", "R", "B", "", "initial_h", "initial_c", "P"]
    node = onnx.helper.make_node("LSTM", inputs, ["Y", "Y_h", "Y_c"], hidden_size=H, **attributes)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "one LSTM",
        [value(name, onnx.TensorProto.FLOAT, array.shape) for name, array in feeds.items()],
        [value(name, onnx.TensorProto.FLOAT, None) for name in ("Y", "Y_h", "Y_c")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    Y, h, c = session.run(None, feeds)
    return Y[:, 0], h[0], c[0]


@pytest.mark.oracle
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("clip", [None, 0.6])
@pytest.mark.parametrize("name", activation.NAMES)
def test_it_is_onnxruntimes(arrays, cotangents, name, clip, coupled):
    *arrays, weight_ch = [0.5 * array for array in arrays]
    spec = activation.of((name, *PARAMETERS.get(name, ())))
    acts = [(spec, activation.of("tanh"), spec), (activation.of("sigmoid"), spec, activation.of("tanh"))][coupled]
    attributes = {
        "activations": ["".join(word.capitalize() for word in act.name.split("_")) for act in acts],
        "activation_alpha": [act.alpha for act in acts if act.alpha is not None],
        "activation_beta": [act.beta for act in acts if act.beta is not None],
        "input_forget": int(coupled),
    }
    attributes = {key: value for key, value in attributes.items() if value != []}
    if clip is not None:
        attributes["clip"] = clip
    want = onnxruntime_lstm(arrays, weight_ch, attributes)
    cell = general.cell(acts, clip, True, coupled)
    got, _ = run(CPU, cell, arrays, cotangents, [weight_ch], modes={})
    for output, wanted in zip(got, want, strict=True):
        # onnxruntime's tanh and sigmoid are fractions of polynomials, good to about 1e-6.
        assert_close(output.astype(np.float32), wanted, rtol=2e-5)


# -- options that do not fit ------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activations": ("sigmoid", "tanh")}, "activations: expected three, for the gates"),
        ({"activations": ("sigmoid", "tanh", "tan")}, "activation: expected one of .*, got 'tan'"),
        ({"clip": 0.0}, "clip: expected a number above 0, or None, got 0.0"),
        ({"clip": float("nan")}, "clip: expected a number above 0, or None, got nan"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ShapeError, match=words):
        general.cell(**options)


def test_peepholes_are_asked_for_when_the_cell_has_them(arrays, cotangents):
    with pytest.raises(
        ShapeError, match=r"weight_ch: expected an array, got None; a general takes x, h0, c0, .*, weight_ch"
    ):
        run(CPU, general.cell(peepholes=True), arrays[:7], cotangents)
