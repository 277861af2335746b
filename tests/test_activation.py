"""The activations of cells: by their definition, safe at the ends, the same in the kernels; the headers of kernels."""

import math
import re
import warnings

import numpy as np
import pytest

from gpulstm import launch
from gpulstm.cells import activation
from gpulstm.cells.activation import Activation
from gpulstm.errors import NoKernel, ShapeError
from tests.conftest import GPUS, require
from tests.first_principles.rnn import value
from tests.tolerances import assert_close, assert_ratio

# Every function, those with parameters twice.
FORMS = [Activation(name) for name in activation.NAMES] + [
    Activation("affine", -0.7, 0.3),
    Activation("leaky_relu", 0.25),
    Activation("thresholded_relu", 0.4),
    Activation("scaled_tanh", 1.7, 0.6),
    Activation("hard_sigmoid", 0.3, 0.4),
    Activation("elu", 0.6),
]
Z = np.array([-6.5, -2.6, -1.0, -0.3, -1e-3, 1e-3, 0.2, 0.41, 0.99, 1.3, 2.2, 7.0])  # no function bends at one of them
BENDS = np.array([-2.5, -0.4 / 0.3, 0.0, 0.4, 1.0, 2.0, 2.5])
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form)))
KERNEL = """// Activations of arrays: any one, chosen at run time (one compilation serves all), and that of a macro.
#include "common.cuh"
#include "activation.cuh"
#ifndef CHOSEN
#define CHOSEN 0, 0, 0, 0
#endif

extern "C" __global__ void any(
    const REAL* z, long long n, long long kind, double alpha, double beta, double clip, REAL* y, REAL* d)
{
    double numbers[] = {(double)kind, alpha, beta, clip};
    Activation form(numbers);
    FOR_EACH(k, n) {
        y[k] = store(form.activate(load(z[k])));
        d[k] = store(form.slope(load(z[k])));
    }
}

extern "C" __global__ void chosen(const REAL* z, long long n, REAL* y, REAL* d) {
    constexpr double numbers[] = {CHOSEN};
    Activation form(numbers);
    FOR_EACH(k, n) {
        y[k] = store(form.activate(load(z[k])));
        d[k] = store(form.slope(load(z[k])));
    }
}
"""


def defined(form, clip, z):
    """The definition, number by number."""
    limit = math.inf if clip is None else clip
    return np.array([value(*form, max(-limit, min(limit, number))) for number in z])


@each_form
@pytest.mark.parametrize("clip", [None, 1.1, 5.0])
def test_values_and_slopes_are_the_definitions(device, form, clip):
    eps = 1e-6
    with device:
        z = device.asarray(Z.reshape(3, 4))
        y, slope = form.forward(device.xp, z, clip), form.slope(device.xp, z, clip)
    assert_close(device.to_numpy(y).ravel(), defined(form, clip, Z), name="value")
    differences = (defined(form, clip, Z + eps) - defined(form, clip, Z - eps)) / (2 * eps)
    np.testing.assert_allclose(device.to_numpy(slope).ravel(), differences, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(device.to_numpy(z), Z.reshape(3, 4))


@each_form
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_value_overflows_and_the_type_stays(form, dtype):
    z = np.array([-1000, -50, 0, 50, 1000]).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for result in (form.forward(np, z), form.slope(np, z), form.forward(np, z, 3.0), form.slope(np, z, 3.0)):
            assert result.dtype == z.dtype and np.isfinite(result).all()


def test_values_at_the_ends():
    ends = {"softplus": (0, 1000), "sigmoid": (0, 1), "hard_sigmoid": (0, 1), "elu": (-1, 1000), "tanh": (-1, 1)}
    for name, want in ends.items():
        np.testing.assert_array_equal(Activation(name).forward(np, np.array([-1000.0, 1000.0])), want)
    assert Activation("softplus").forward(np, np.float64([-40.0]))[0] == pytest.approx(math.exp(-40), rel=1e-12)
    assert Activation("elu").forward(np, np.float64([-1e-12]))[0] == pytest.approx(-1e-12, rel=1e-9)


@pytest.mark.parametrize(
    ("form", "z", "want", "slope"),
    [
        (Activation("relu"), 0.0, 0.0, 0.0),
        (Activation("leaky_relu", 0.25), 0.0, 0.0, 0.25),
        (Activation("elu", 0.6), 0.0, 0.0, 0.6),
        (Activation("hard_sigmoid"), -2.5, 0.0, 0.0),
        (Activation("hard_sigmoid"), 2.5, 1.0, 0.0),
        (Activation("thresholded_relu", 0.4), 0.4, 0.4, 1.0),
    ],
)
def test_where_a_function_bends(form, z, want, slope):
    assert form.forward(np, np.array([z]))[0] == want and form.slope(np, np.array([z]))[0] == slope


def test_the_usual_parameters():
    """Those of ONNX's operators of these names; its affine and scaled_tanh have none, and are the plain ones here."""
    usual = {
        "affine": (1.0, 0.0), "leaky_relu": (0.01, None), "thresholded_relu": (1.0, None), "scaled_tanh": (1.0, 1.0),
        "hard_sigmoid": (0.2, 0.5), "elu": (1.0, None),
    }  # fmt: skip
    for name in activation.NAMES:
        assert tuple(Activation(name)) == (name, *usual.get(name, (None, None)))


def test_the_slope_is_zero_outside_the_clip_alone():
    z = np.array([-3.5, -3.0, 3.0, 3.5])
    np.testing.assert_array_equal(Activation("affine", 2.0, 1.0).slope(np, z, 3.0), [0, 2, 2, 0])
    np.testing.assert_array_equal(Activation("affine", 2.0, 1.0).forward(np, z, 3.0), [-5, -5, 7, 7])


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "leaky_relu", "elu", "softsign", "softplus"])
def test_pytorchs_values_and_slopes_at_a_bend_too(name):
    torch = require("torch")
    function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
    z = torch.tensor([*Z, 0.0], dtype=torch.float64, requires_grad=True)
    y = function(z)
    y.sum().backward()
    form = Activation(name)
    assert_close(form.forward(np, z.detach().numpy()), y.detach().numpy(), name="value")
    assert_close(form.slope(np, z.detach().numpy()), z.grad.numpy(), name="slope")


# -- in kernels ----------------------------------------
@pytest.fixture
def both(tmp_path):
    """A .cu file of the user's own, by its path."""
    path = tmp_path / "both.cu"
    path.write_text(KERNEL)
    return str(path)


@pytest.mark.parametrize("device", GPUS, indirect=True)
@each_form
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_kernels_form_is_the_same(device, both, form, clip, dtype):
    z = np.concatenate([Z, BENDS, [-1000, 1000]])
    if dtype == np.float32:
        z = z[~np.isin(z, (0.4, -0.4 / 0.3))]  # rounded, these lie beside the bends
    outs = [device.empty(z.shape, dtype) for _ in range(2)]
    numbers = [0.0 if number is None else float(number) for number in (*form, clip)[1:]]
    device.kernels(both, "any", z.size, device.asarray(z.astype(dtype)), z.size,
                   activation.NAMES.index(form.name), *numbers, *outs, real=dtype)  # fmt: skip
    for out, which in zip(outs, (form.forward, form.slope), strict=True):
        if dtype == np.float64:
            assert_close(device.to_numpy(out), which(np, z, clip), name=which.__name__)
        else:
            assert_ratio(device.to_numpy(out), which(np, z.astype(dtype), clip), which(np, z, clip), which.__name__)


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_a_macro_carries_the_choice(device, both):
    form, z = Activation("hard_sigmoid", 0.3, 0.4), np.concatenate([Z, BENDS])
    outs = [device.empty(z.shape, np.float64) for _ in range(2)]
    defines = (f"CHOSEN={','.join(map(str, form.numbers(1.2)))}",)
    device.kernels(both, "chosen", z.size, device.asarray(z), z.size, *outs, real=np.float64, defines=defines)
    assert_close(device.to_numpy(outs[0]), form.forward(np, z, 1.2))
    assert_close(device.to_numpy(outs[1]), form.slope(np, z, 1.2))


def test_the_kernels_know_every_name():
    kinds = re.search(r"enum ActivationKind \{([^}]*)\}", launch.source("step", "rnn"))[1]
    assert [kind.strip().lower() for kind in kinds.split(",")] == list(activation.NAMES)


# -- choosing ----------------------------------------
def test_an_activation_is_told_in_three_ways():
    assert activation.of("elu") == activation.of(("elu",)) == activation.of(("elu", None, None)) == Activation("elu")
    assert activation.of(["hard_sigmoid", 0.1, None]) == Activation("hard_sigmoid", 0.1, 0.5)
    assert activation.of(Activation("relu")) == Activation("relu")
    assert tuple(Activation("leaky_relu")) == ("leaky_relu", 0.01, None)
    assert Activation("hard_sigmoid").numbers(3) == (activation.NAMES.index("hard_sigmoid"), 0.2, 0.5, 3)
    assert Activation("tanh").numbers() == (activation.NAMES.index("tanh"), 0, 0, 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("swish", "activation: expected one of relu, tanh, .*, softplus, got 'swish'"),
        ("Tanh", "expected one of .* got 'Tanh'"),
        (("swish", 1.0), "expected one of .* got 'swish'"),
        (("tanh", 0.5), "alpha of tanh: expected None, because this function has no such parameter, got 0.5"),
        (("elu", 1.0, 0.5), "beta of elu: expected None, because this function has no such parameter, got 0.5"),
        (("elu", float("nan")), "alpha of elu: expected a finite number, got nan"),
        (("affine", 1.0, "2"), "beta of affine: expected a finite number, got '2'"),
        (("elu", 1, None, 4), r"expected a name or \(name, alpha, beta\), with relu, .*; got \('elu', 1, None, 4\)"),
        (3, r"expected a name or \(name, alpha, beta\), with relu, .*; got 3"),
    ],
)
def test_what_is_no_activation_is_named(spec, message):
    with pytest.raises(ShapeError, match=message):
        activation.of(spec)


@pytest.mark.parametrize("clip", [0, -1.0, float("inf"), float("nan"), "3"])
def test_what_is_no_clip_is_named(clip):
    assert activation.check_clip(None) is None and activation.check_clip(np.float32(0.25)) == 0.25
    with pytest.raises(ShapeError, match=f"clip: expected a number above 0, or None, got {clip!r}"):
        activation.check_clip(clip)


# -- headers of kernels, and files of the user's own ----------------------------------------
def test_every_header_comes_once(both):
    for file in ((both,), ("step", "rnn"), ("step", "gru")):
        text = launch.source(*file)
        assert not re.search(r'#include "[\w/]+\.cuh"|CELL_FILE$|#pragma once', text, re.MULTILINE)
        assert text.count("#define FOR_EACH(") == text.count("enum ActivationKind {") == 1
    assert launch.source("step", "peephole").count("struct Lstm : Cell {") == 1  # which it includes
    own = KERNEL.partition('#include "activation.cuh"')[2]
    assert launch.source(both).endswith(own)


def test_a_header_that_is_none_of_ours_is_left_to_the_compiler(tmp_path):
    path = tmp_path / "own.cu"
    path.write_text('#include "mine.cuh"\n#include <cuda_fp16.h>\n')
    assert launch.source(str(path)) == path.read_text()


def test_a_cells_file_of_ones_own_stands_in_the_step(tmp_path):
    path = tmp_path / "own.cuh"
    path.write_text('#include "cell.cuh"\nstruct Own : Cell {};')
    text = launch.source("step", str(path))
    assert text.index("struct Cell {") < text.index("struct Own : Cell {};") < text.index("constexpr int GATES")


def test_a_path_without_a_file_is_named(tmp_path):
    with pytest.raises(NoKernel, match=r"expected the path of a \.cu file, but there is no file at '.*absent\.cu'"):
        launch.source(str(tmp_path / "absent.cu"))
    with pytest.raises(
        NoKernel, match=r"kernel file: expected one of .*scan.*, or the path of a \.cu file, got 'absent'"
    ):
        launch.source("absent")
    with pytest.raises(NoKernel, match=r"expected the path of a \.cuh file, but there is no file at '.*absent\.cuh'"):
        launch.source("step", str(tmp_path / "absent.cuh"))
    with pytest.raises(
        NoKernel, match=r"cell file: expected one of .*gru.*, or the path of a \.cuh file, got 'absent'"
    ):
        launch.source("step", "absent")


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_a_kernel_of_an_own_file_has_its_name(device, both):
    with device:
        kernel = device.kernels.kernel(both, "chosen", np.float32)
    assert kernel.name == f"{both} chosen"
