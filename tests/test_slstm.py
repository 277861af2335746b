"""The sLSTM: what its stabiliser must not change, its start from zeros, and gradients through c, n and m."""

import numpy as np
import pytest

from gpulstm import as_dtype, functional
from gpulstm.backend import CPU
from gpulstm.cells import slstm
from tests.tolerances import assert_close, assert_gradient, central_differences

STATES = ("h", "c", "n", "m")
NAMES = ("x", *(f"{state}0" for state in STATES), "w_ih", "w_hh", "b_ih", "b_hh")


def arguments(rng, T, B, D, H, states=True):
    """{name: float64 array or None} in the order of functional.recurrent; n0 is positive, as every n is."""
    make = rng.standard_normal
    first = [make((B, H)), make((B, H)), 0.5 + rng.random((B, H)), make((B, H))] if states else [None] * 4
    values = [make((T, B, D)), *first, make((4 * H, D)), make((4 * H, H)) / np.sqrt(H), make(4 * H), make(4 * H)]
    return dict(zip(NAMES, values, strict=True))


def run(device, given, cotangents=None, dtype="float64", **modes):
    """{name: host array} of y and the states and, with cotangents, of every gradient as d<name>."""

    def there(array):
        return None if array is None else device.asarray(array.astype(as_dtype(dtype)))

    with device:
        outputs, pullback = functional.recurrent(*map(there, given.values()), cell=slstm.CELL, **modes)
        results = dict(zip(("y", *STATES), outputs, strict=True))
        if cotangents is not None:
            gradients = pullback(*map(there, cotangents))
            results |= {f"d{name}": d for name, d in zip(given, gradients, strict=False) if d is not None}
    return {name: device.to_numpy(array) for name, array in results.items()}


def cotangents_of(rng, T, B, H):
    return [rng.standard_normal(shape) for shape in ((T, B, H), *[(B, H)] * 4)]


def test_h_is_that_of_the_equations_without_the_stabiliser(device):
    # Beck et al. 2024, eq. 8-14: i = exp(z_i), no m, and first states in that scale.
    rng = np.random.default_rng(1)
    given = arguments(rng, 5, 3, 4, 6)
    h, c, n = given["h0"], given["c0"] * np.exp(given["m0"]), given["n0"] * np.exp(given["m0"])
    want = []
    for x in given["x"]:
        z = x @ given["w_ih"].T + h @ given["w_hh"].T + given["b_ih"] + given["b_hh"]
        z_i, z_f, z_z, z_o = np.split(z, 4, axis=1)
        c = c / (1 + np.exp(-z_f)) + np.exp(z_i) * np.tanh(z_z)
        n = n / (1 + np.exp(-z_f)) + np.exp(z_i)
        h = c / n / (1 + np.exp(-z_o))
        want.append(h)
    assert_close(run(device, given)["y"], np.stack(want))


def test_the_scale_of_the_first_states_changes_nothing_and_has_no_gradient(device):
    rng = np.random.default_rng(2)
    given = arguments(rng, 4, 2, 3, 5)
    s = rng.standard_normal((2, 5))
    scaled = {**given, "c0": given["c0"] * np.exp(-s), "n0": given["n0"] * np.exp(-s), "m0": given["m0"] + s}
    cotangents = [rng.standard_normal((4, 2, 5)), None, None, None, None]
    got, same = run(device, given, cotangents), run(device, scaled, cotangents)
    assert_close(same["y"], got["y"])
    # The derivative in s is zero: so is what reaches the maximum of every step, while the loss sees h alone.
    along_s = got["dm0"] - got["dc0"] * given["c0"] - got["dn0"] * given["n0"]
    assert np.abs(along_s).max() <= 1e-13 * np.abs(got["dm0"]).max()
    assert np.abs(got["dm0"]).max() > 1e-3


@pytest.mark.parametrize("bias", [0.0, -40.0, -2000.0, 2000.0])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_first_step_from_zeros_takes_what_it_sees_whatever_its_weight(device, dtype, bias):
    # i / n = 1 however small or large exp(z_i) is: h = o z, and z_i and z_f have no gradient.
    rng = np.random.default_rng(3)
    given = arguments(rng, 1, 2, 3, 4, states=False)
    given["b_ih"][:4] += bias
    given = {k: None if a is None else a.astype(as_dtype(dtype)).astype(np.float64) for k, a in given.items()}
    dy = rng.standard_normal((1, 2, 4))
    got = run(device, given, [dy, None, None, None, None], dtype)
    _, _, z_z, z_o = np.split(given["x"][0] @ given["w_ih"].T + given["b_ih"] + given["b_hh"], 4, axis=1)
    tolerance = {"float64": 1e-12, "float32": 1e-5, "float16": 0.01, "bfloat16": 0.08}[dtype]
    assert_close(got["y"][0].astype(np.float64), np.tanh(z_z) / (1 + np.exp(-z_o)), rtol=tolerance)
    assert (got["n"] == 1).all()
    db = got["db_ih"].astype(np.float64)
    want = (dy[0] / (1 + np.exp(-z_o)) * (1 - np.tanh(z_z) ** 2)).sum(0)
    assert np.abs(db[8:12] - want).max() <= 2 * tolerance * np.abs(want).max()
    assert np.abs(db[:8]).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize("bias", [0.0, -30.0])
def test_a_reset_is_a_start_from_zeros(device, bias):
    rng = np.random.default_rng(4)
    given = arguments(rng, 5, 2, 3, 4)
    given["b_ih"][:4] += bias
    reset = np.zeros((5, 2), bool)
    reset[2] = True
    got = run(device, given, cotangents_of(rng, 5, 2, 4), reset=reset)
    alone = {**given, "x": given["x"][2:], **{f"{state}0": None for state in STATES}}
    assert_close(got["y"][2:], run(device, alone)["y"])
    assert all(np.isfinite(array).all() for array in got.values())
    explicit = {**alone, **{f"{state}0": np.zeros((2, 4)) for state in STATES}}
    assert_close(run(device, explicit)["y"], got["y"][2:])


def test_n_never_falls_below_one(device):
    rng = np.random.default_rng(5)
    given = arguments(rng, 40, 2, 3, 4, states=False)
    given["x"] *= 30
    for steps in (1, 7, 40):
        n = run(device, given, lengths=[steps, steps])["n"]
        assert (n >= 1).all() and (n <= steps * (1 + 1e-12)).all()


def test_the_returned_states_have_gradients_by_both_branches_of_the_maximum():
    rng = np.random.default_rng(6)
    given = arguments(rng, 3, 2, 2, 3)
    given["b_ih"][:2] = 8, -8  # z_i: in unit 0 what comes in wins, in unit 1 the old state
    for through in range(2, 5):  # c, n and m, each alone
        cotangents = [None] * 5
        cotangents[through] = rng.standard_normal((2, 3))
        gradients = run(CPU, given, cotangents)

        def loss(_, through=through, cotangents=cotangents):
            return (run(CPU, given)[("y", *STATES)[through]] * cotangents[through]).sum()

        for name, value in given.items():
            differences = central_differences(loss, value)
            assert_gradient(gradients[f"d{name}"], differences, name=f"{through}: {name}")
    assert np.abs(gradients["dm0"][:, 1]).max() > 0.1 > np.abs(gradients["dm0"][:, 0]).max()


def test_first_states_of_zero_that_are_given_have_the_gradients_of_h():
    rng = np.random.default_rng(7)
    given = arguments(rng, 3, 2, 2, 3)
    given |= {f"{state}0": np.zeros((2, 3)) for state in STATES}
    cotangents = [rng.standard_normal((3, 2, 3)), None, None, None, None]
    gradients = run(CPU, given, cotangents)
    for name, value in given.items():
        differences = central_differences(lambda _: (run(CPU, given)["y"] * cotangents[0]).sum(), value)
        assert_gradient(gradients[f"d{name}"], differences, name=name)


def test_a_state_that_is_thrown_away_overflows_nothing(device):
    # Left padding in parts: the gradient of a state of zero goes through steps that do not count, in a half type.
    rng = np.random.default_rng(8)
    given = arguments(rng, 9, 2, 3, 4, states=False)
    given["b_ih"][:4] -= 60
    mask = np.arange(9)[:, None] >= np.array([4, 5])
    for dtype in ("float16", "float32"):
        for path in ("auto", "reference"):
            got = run(device, given, cotangents_of(rng, 9, 2, 4), dtype, mask=mask, recompute=True, path=path)
            assert all(np.isfinite(array.astype(np.float64)).all() for array in got.values())


def test_where_nothing_was_weighed_the_old_scale_gives_no_gradient(device):
    # n0 = 0 with another c0, and an m0 that would make f larger than its limit.
    rng = np.random.default_rng(9)
    given = arguments(rng, 1, 3, 4, 5)
    given["n0"][...] = 0
    given["m0"][...] = [[-40], [4], [40]]
    cotangents = cotangents_of(rng, 1, 3, 5)
    z = given["x"][0] @ given["w_ih"].T + given["h0"] @ given["w_hh"].T + given["b_ih"] + given["b_hh"]
    z_i, z_f, _, _ = np.split(z, 4, axis=1)
    limited = given["m0"] - np.log1p(np.exp(-z_f)) - z_i > slstm.LARGEST
    assert limited.any() and not limited.all()
    want = run(CPU, given, cotangents, path="reference")
    assert (want["dm0"][limited] == 0).all() and (want["dm0"][~limited] != 0).all()
    for name, array in run(device, given, cotangents).items():
        assert_close(array, want[name], name=name)


@pytest.mark.parametrize(
    ("n0", "m0", "of", "db_i", "dm0"),
    [
        (1.0, 0.0, "m", 1.0, 0.0),  # z_i and log_old are equal: the maximum's gradient is z_i's
        (0.0, slstm.LARGEST, "c", -np.exp(slstm.LARGEST), np.exp(slstm.LARGEST)),  # f at its limit is not yet cut
    ],
)
def test_where_two_numbers_are_equal_all_paths_take_the_same(device, n0, m0, of, db_i, dm0):
    # One unit with z_i = z_z = 0 and, since log sigmoid(1000) is 0, log_old = m0.
    shapes = ((1, 1, 1), *[(1, 1)] * 4, (4, 1), (4, 1), (4,), (4,))
    given = {name: np.zeros(shape) for name, shape in zip(NAMES, shapes, strict=True)}
    given["c0"][:], given["n0"][:], given["m0"][:], given["b_ih"][1] = 1, n0, m0, 1000
    cotangents = [np.zeros((1, 1, 1)), *(np.full((1, 1), float(state == of)) for state in STATES)]
    for path in ("auto", "reference"):
        got = run(device, given, cotangents, path=path)
        assert_close(got["db_ih"][0], db_i, name="db_i")
        assert_close(got["dm0"].item(), dm0, name="dm0")
