"""Layers in a row as ONNX: activations, norms, the last step, element types; what is refused, and by name."""

import importlib

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.io.onnx.activations import FUNCTIONS, SHAPES
from tests.onnx_models import RTOL, generator, operator_model, run
from tests.tolerances import assert_close

pytestmark = pytest.mark.oracle

Input = gl.io.onnx.Input
X = 2 * generator().standard_normal((5, 3, 4), np.float32)


def norm(*shape, **options) -> gl.nn.LayerNorm:
    """With weights that are not ones."""
    layer = gl.nn.LayerNorm(shape, device="cpu", **options)
    for parameter in layer.parameters():
        parameter.data[:] = generator().standard_normal(parameter.shape)
    return layer


LAYERS = {
    "Tanh": gl.nn.Tanh(),
    "Sigmoid": gl.nn.Sigmoid(),
    "ReLU": gl.nn.ReLU(),
    "LeakyReLU": gl.nn.LeakyReLU(0.3),
    "ELU": gl.nn.ELU(0.6),
    "Softplus": gl.nn.Softplus(),
    "Softsign": gl.nn.Softsign(),
    "SiLU": gl.nn.SiLU(),
    "GELU": gl.nn.GELU(),
    "GELU with tanh": gl.nn.GELU("tanh"),
    "Softmax": gl.nn.Softmax(),
    "Softmax of another axis": gl.nn.Softmax(0),
    "LogSoftmax": gl.nn.LogSoftmax(axis=1),
    "LayerNorm": norm(4, eps=0.1),
    "LayerNorm of two axes": norm(3, 4),
    "LayerNorm without bias": norm(4, bias=False),
    "LayerNorm without weights": norm(4, elementwise_affine=False),
    "Flatten": gl.nn.Flatten(),
    "Flatten of the first axes": gl.nn.Flatten(0, 1),
    "tanh": gl.tanh,
    "sigmoid": gl.sigmoid,
    "relu": gl.relu,
    "exp": gl.nn.exp,
    "log": gl.nn.log,
    "softmax": gl.softmax,
    "log_softmax": gl.log_softmax,
}


def test_every_layer_and_function_has_a_case():
    assert {type(layer) for layer in LAYERS.values() if isinstance(layer, gl.Module)} == {kind for kind, _ in SHAPES}
    assert {name for name in LAYERS if name.islower()} == {function.__name__ for function, _ in FUNCTIONS}


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_runs_as_in_onnxruntime(name, dtype):
    layer, x = LAYERS[name], (np.abs(X) + 0.1 if name == "log" else X).astype(dtype)
    layer = layer.to(dtype=dtype) if isinstance(layer, gl.Module) else layer
    sizes = (3, 4) if name in ("LayerNorm of two axes", "Flatten of the first axes") else ("batch", 4)
    inputs = Input("x", ("time", *sizes), dtype)
    if dtype == "float64" and name in ("ELU", "GELU", "LeakyReLU", "Softplus", "Softsign"):
        with pytest.raises(DTypeError, match="which onnxruntime does not compute in float64, got"):
            gl.io.onnx.export(gl.Sequential(layer), inputs)
        return
    want = layer(x)
    (got,) = run(gl.io.onnx.export(gl.Sequential(layer), inputs), x=x)
    assert got.dtype == dtype
    # Both compute halves in float32; the last bit may be rounded the other way. ONNX' eps is a float32.
    assert_close(got, want, name, {"float32": RTOL, "float16": 2e-3, "float64": 1e-8}[dtype])


RECURRENT = {"LSTM": {}, "GRU": {"reset": "before"}, "RNN": {}, "PeepholeLSTM": {}}


@pytest.mark.parametrize("merge", [None, "concat", "sum", "mean", "mul"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_the_last_step_alone(name, batch_first, merge):
    options = {"bidirectional": True, "merge": merge} if merge else {}
    made = {"device": "cpu", "generator": generator()}
    options |= RECURRENT[name] | {"batch_first": batch_first, "return_sequences": False}
    layer = getattr(gl.nn, name)(4, 6, 2, **options, **made)
    model = gl.Sequential({"rnn": layer, "act": gl.tanh, "head": gl.Linear(layer.output_size, 2, **made)})
    x, lengths = (X.swapaxes(0, 1).copy() if batch_first else X), np.array([2, 5, 1], np.int32)
    exported = gl.io.onnx.export(model, lengths=True)
    assert [size.dim_param or size.dim_value for size in exported.graph.output[0].type.tensor_type.shape.dim] == [
        "batch",
        2,
    ]
    assert "head.bias" in {tensor.name for tensor in exported.graph.initializer}
    assert_close(run(exported, x=x, lengths=lengths)[0], model(x, lengths=lengths), "with lengths", RTOL)
    for steps in (1, 5):
        part = x[:, :steps] if batch_first else x[:steps]
        assert_close(run(gl.io.onnx.export(model), x=part)[0], model(part), "without", RTOL)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_float16_runs(name, batch_first):
    made = {"device": "cpu", "generator": generator(), "dtype": "float16"}
    layer = getattr(gl.nn, name)(4, 6, 2, bidirectional=True, batch_first=batch_first, **made)
    normed = gl.nn.LayerNorm(12, device="cpu", dtype="float16")
    for model in (
        gl.Sequential(layer, normed, gl.Linear(12, 3, **made)),
        gl.Sequential(layer, gl.Linear(12, 3, **made)),
    ):
        exported = gl.io.onnx.export(model)
        weight = next(tensor for tensor in exported.graph.initializer if tensor.name.endswith("weight_transposed"))
        assert list(weight.dims) == [1, 12, 3]  # with two axes behind a Transpose onnxruntime ends
        (got,) = run(exported, x=X.astype(np.float16))
        assert got.dtype == np.float16
        assert_close(got, model(X.astype(np.float16)), name, 1e-2)
    (operator, _) = gl.io.onnx.load(gl.io.onnx.export(layer).SerializeToString()).operators.values()
    for key, array in layer.state_dict().items():
        if key.endswith("_l0"):
            kept = operator.weights[0][key.removesuffix("_l0")]
            assert kept.dtype == np.float16 and np.array_equal(kept, array), key


@pytest.mark.parametrize("name", RECURRENT)
def test_what_onnxruntime_does_not_compute_is_refused(name):
    layer = getattr(gl.nn, name)(4, 6, device="cpu", dtype="float64")
    with pytest.raises(DTypeError, match=r"float64; export copy\.deepcopy\(model\)\.float\(\)"):
        gl.io.onnx.export(layer)
    assert run(gl.io.onnx.export(layer.float()), x=X)[0].dtype == np.float32
    with pytest.raises(FormatError, match=r"got bfloat16; export copy\.deepcopy\(model\)\.float\(\)"):
        gl.io.onnx.export(layer.bfloat16())


def test_a_file_in_float64_is_read_and_run():
    """As ONNX defines it; onnxruntime alone does not."""
    rng, shapes = generator(), {"X": (5, 3, 4), "W": (1, 24, 4), "R": (1, 24, 6), "B": (1, 48), "initial_h": (1, 3, 6)}
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    model = operator_model("LSTM", arrays, inputs=("X",), hidden_size=6)
    operator = gl.io.onnx.load(model).operators["layer"]
    want = importlib.import_module("onnx.reference").ReferenceEvaluator(model).run(None, {"X": arrays["X"]})
    for got, wanted in zip(operator.run(arrays["X"]), want, strict=True):
        assert_close(got, wanted, "float64", 1e-12)
    with pytest.raises(DTypeError, match="does not compute in float64"):
        gl.io.onnx.export(operator)


class Own(gl.nn.Tanh):
    """Another function."""

    def forward(self, x):
        return super().forward(x) * 2


class Called(gl.Linear):
    """Another call."""

    def __call__(self, x):
        return super().__call__(x) * 2


def hooked(when: str) -> gl.Linear:
    layer = gl.Linear(4, 2, device="cpu")
    getattr(layer, f"register_forward_{when}")(lambda *_: None)
    return layer


def replaced() -> gl.Linear:
    layer = gl.Linear(4, 2, device="cpu")
    layer.forward = lambda x: x
    return layer


REFUSED = {
    r"^1\.: expected one of the layers and functions .*, got function <lambda>;": lambda: gl.Sequential(
        gl.nn.Tanh(), lambda x: x * 2
    ),
    r"got Own; for a model of your own": lambda: gl.Sequential(Own()),
    r"got Called;": lambda: gl.Sequential(Called(4, 2, device="cpu")),
    r"got ufunc absolute;": lambda: gl.Sequential(np.abs),
    r"^0\.1\.: .*, got function <lambda>;": lambda: gl.Sequential(gl.Sequential(gl.tanh, lambda x: x)),
    r"^0\.: expected a layer without changes of its own, got one with hooks": lambda: gl.Sequential(hooked("hook")),
    r"^Linear: expected a layer without changes of its own, got one with hooks": lambda: hooked("pre_hook"),
    r"^Linear: expected a layer without changes of its own, got one with a forward of its own": replaced,
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_nodes_is_refused(words):
    with pytest.raises(FormatError, match=words):
        gl.io.onnx.export(REFUSED[words](), Input("x", ("batch", 4)))


def test_hooks_that_were_taken_away_are_none():
    layer = gl.Linear(4, 2, device="cpu")
    layer.register_forward_hook(lambda *_: None).remove()
    assert gl.io.onnx.export(layer, Input("x", ("batch", 4)))


def test_states_and_lengths_that_nothing_takes_are_refused():
    for option in ("states", "lengths"):
        with pytest.raises(FormatError, match=f"{option}: expected a model with a recurrent layer"):
            gl.io.onnx.export(gl.Linear(4, 2, device="cpu"), **{option: True})


def test_shapes_that_do_not_fit_are_named():
    for layer in (gl.Linear(5, 2, device="cpu"), gl.LSTM(5, 2, device="cpu")):
        with pytest.raises(ShapeError, match=r"x: expected \(\.\.\., 5\), got \('time', 'batch', 4\)"):
            gl.io.onnx.export(layer, Input("x", ("time", "batch", 4)))
        with pytest.raises(DTypeError, match="x: expected float32, got float16"):
            gl.io.onnx.export(layer, Input("x", ("time", "batch", 5), "float16"))
    with pytest.raises(DTypeError, match=r"^1\.: expected float16, got float32"):
        gl.io.onnx.export(gl.Sequential(gl.Linear(4, 3, device="cpu"), gl.Linear(3, 2, device="cpu", dtype="float16")))
    with pytest.raises(FormatError, match="expected layers that fit each other, got a model that onnx rejects"):
        gl.io.onnx.export(lambda graph, x, y: graph.concatenate([x, y], 1), [Input("x", (2, 3)), Input("y", (3, 3))])
    with pytest.raises(ShapeError, match="expected last axes of"):
        gl.io.onnx.export(gl.nn.LayerNorm(5, device="cpu"), Input("x", ("batch", 4)))
    with pytest.raises(ShapeError, match="expected axes 2 to -1"):
        gl.io.onnx.export(gl.nn.Flatten(2), Input("x", ("batch", 4)))
    with pytest.raises(FormatError, match="expected known sizes for the axes after the flattened ones"):
        gl.io.onnx.export(gl.nn.Flatten(0, 1), Input("x", ("a", "b", "c")))
    with pytest.raises(FormatError, match="inputs: expected those of a"):
        gl.io.onnx.export(gl.Sequential(gl.nn.Tanh()))
