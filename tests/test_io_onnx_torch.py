"""ONNX files that PyTorch writes: first states of any batch, weights that are joined in the file, branches."""

import io
import warnings

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError
from tests.conftest import require
from tests.onnx_models import GATES, RTOL, onnx, run
from tests.tolerances import assert_close

torch = require("torch")
pytestmark = pytest.mark.oracle


class Head(torch.nn.Module):
    """A recurrent layer and a product."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn, self.head = getattr(torch.nn, kind)(5, 6, 2, bidirectional=True), torch.nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Learned(torch.nn.Module):
    """First states that are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.h = torch.nn.GRU(5, 6), torch.nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x):
        return self.rnn(x, self.h.expand(1, x.shape[1], 6).contiguous())[0]


class Choice(torch.nn.Module):
    """One layer or another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.LSTM(5, 6), torch.nn.LSTM(5, 6)

    def forward(self, x, first: bool):
        if first:  # noqa: SIM108, as the exporter knows no other form
            y = self.first(x)[0]
        else:
            y = self.second(x)[0]
        return y


def exported(model, *inputs, script: bool = False, **options) -> bytes:
    """What PyTorch's exporter writes that needs no further package."""
    file = io.BytesIO()
    names = {"input_names": ["x", "first"][: len(inputs)], "dynamic_axes": {"x": {0: "time", 1: "batch"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(model.eval()) if script else model.eval()
        torch.onnx.export(model, inputs, file, dynamo=False, **names, **options)
    return file.getvalue()


X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("version", "folded"), [(9, False), (9, True), (13, False), (17, False), (17, True)])
@pytest.mark.parametrize("kind", GATES)
def test_weights_and_first_states_as_pytorch_writes_them(kind, version, folded):
    torch.manual_seed(0)
    model = Head(kind)
    file = gl.io.onnx.load(exported(model, X, opset_version=version, do_constant_folding=folded))
    assert len(file.operators) == 2
    assert all(operator.open_inputs == operator.held == () for operator in file.operators.values())
    assert_close(file.layer(*file.operators)(X.numpy())[0], model.rnn(X)[0].detach().numpy(), kind, RTOL)


def test_learned_first_states_are_not_dropped():
    torch.manual_seed(0)
    model = Learned()
    file = gl.io.onnx.load(exported(model, X))
    (operator,) = file.operators.values()
    assert operator.held == ("initial_h",) and "holds initial_h for any batch" in repr(file)
    with pytest.raises(FormatError, match="got initial_h in the file"):
        file.layer()
    h = model.h.detach().expand(1, 3, 6).contiguous().numpy()
    assert_close(file.layer(ignore_states=True)(X.numpy(), h)[0], model(X).detach().numpy(), "layer", RTOL)
    assert_close(operator.run(X.numpy(), initial_h=h)[0][:, 0], model(X).detach().numpy(), "run", RTOL)


def test_a_choice_becomes_branches():
    torch.manual_seed(0)
    model = Choice()
    data = exported(model, X, torch.tensor(True), script=True)
    file = gl.io.onnx.load(data)
    assert len(file.operators) == 2 and all("branch" in name for name in file.operators)
    for name, operator in file.operators.items():
        theirs = model.first if "then_branch" in name else model.second
        assert_close(operator.layer()(X.numpy())[0], theirs(X)[0].detach().numpy(), name, RTOL)


def test_what_pytorch_exports_runs_as_the_layer_that_is_read():
    model = Head("LSTM")
    data = exported(model, X)
    file = gl.io.onnx.load(data)
    head = gl.Linear(12, 3, device="cpu")
    head.load_state_dict({name: value.numpy() for name, value in model.head.state_dict().items()})
    ours = gl.Sequential(file.layer(*file.operators), head)
    for shape in ((4, 3, 5), (1, 1, 5)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        (want,) = run(onnx.load_from_string(data), x=x)
        assert_close(ours(x), want, "theirs", RTOL)
        assert_close(run(gl.io.onnx.export(ours), x=x)[0], want, "exported again", RTOL)
