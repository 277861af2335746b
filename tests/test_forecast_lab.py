"""The forecasting lab: the Forecaster, its baselines, CSV files as people have them, and the commands."""

import csv
import gzip
import io
import json
from datetime import datetime, timedelta

import numpy as np
import pytest

from gpulstm import random
from gpulstm.cli import _run
from gpulstm.errors import DTypeError, FileExists, FormatError, NotFitted, ShapeError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.labs.estimator import Run
from gpulstm.labs.files import RunFiles
from gpulstm.labs.forecast import Forecaster
from gpulstm.labs.forecast.baselines import Measures, Ridge, last_value, seasonal
from gpulstm.labs.forecast.model import forecast_loss
from gpulstm.labs.forecast.table import Options, read_table
from gpulstm.labs.forecast.times import Clock, Step, parse
from gpulstm.labs.model_file import HEADER
from gpulstm.tape import tensor
from gpulstm.train.interrupt import Interrupted

N = 160
T = np.arange(N)
WAVE = np.sin(T / 4)
SMALL = {"window": 12, "horizon": 3, "hidden_size": 8, "epochs": 2, "random_state": 0, "device": "cpu"}


def fitted(y=WAVE, X=None, **options):
    forecaster = Forecaster(**{**SMALL, **options})
    return forecaster.fit(y) if X is None else forecaster.fit(X, y)


@pytest.fixture(scope="module")
def plain():
    return fitted()


# -- the estimator -------------------------------------------------------------------------------------------


def test_a_wave_is_forecast():
    forecaster = fitted(WAVE[:140], window=24, horizon=12, hidden_size=16, epochs=200, learning_rate=1e-2)
    predicted = forecaster.predict()
    assert predicted.shape == (12,) and predicted.dtype == np.float64
    assert np.abs(predicted - WAVE[140:152]).mean() < 0.15
    assert forecaster.score(WAVE[140:152]) > 0.9
    low, high = forecaster.predict_interval(coverage=0.95)
    assert (low < high).all() and ((low < WAVE[140:152]) & (WAVE[140:152] < high)).mean() > 0.7
    for steps in (1, 12, 17, 36):  # one horizon, part of one, and several
        assert np.abs(forecaster.predict(steps=min(steps, 20)) - WAVE[140 : 140 + min(steps, 20)]).mean() < 0.2
        assert (forecaster.predict(steps=steps)[:12] == predicted[:steps]).all()


def test_the_same_seed_gives_the_same_bits_and_leaves_the_default_generator_alone():
    random.manual_seed(7)
    want = random.default_generator().random()
    random.manual_seed(7)
    first, second = fitted(dropout=0.3, noise=0.1), fitted(dropout=0.3, noise=0.1)
    assert random.default_generator().random() == want
    assert (first.predict() == second.predict()).all()
    assert (first.predict() != fitted(dropout=0.3, noise=0.1, random_state=1).predict()).any()
    with_generator = [fitted(random_state=np.random.default_rng(3)).predict() for _ in range(2)]
    assert (with_generator[0] == with_generator[1]).all()
    with_state = [fitted(random_state=np.random.RandomState(3)).predict() for _ in range(2)]
    assert (with_state[0] == with_state[1]).all()


def test_shapes_follow_the_series(plain):
    assert plain.predict().shape == (3,)
    several = fitted(np.stack([WAVE, WAVE**2], axis=1))
    assert several.predict(steps=5).shape == (5, 2)
    assert several.predict_interval(steps=7)[1].shape == (7, 2)
    assert fitted(WAVE[:, None]).predict().shape == (3, 1)
    forecasts = several.backtest(np.stack([WAVE, WAVE**2], axis=1), start=100, steps=4, stride=10)
    assert forecasts.origins.tolist() == [100, 110, 120, 130, 140, 150]
    assert forecasts.predicted.shape == forecasts.truth.shape == (6, 4, 2)
    assert {c: low.shape for c, (low, _) in forecasts.intervals.items()} == {0.8: (6, 4, 2), 0.95: (6, 4, 2)}


def test_a_backtest_is_what_predict_says_from_each_origin():
    X = np.stack([T % 5, np.cos(T / 3)], axis=1)
    forecaster = fitted(WAVE, X, known=[0])
    forecasts = forecaster.backtest(X, WAVE, start=50, steps=3, stride=7)
    assert (forecasts.truth[1, :, 0] == WAVE[57:60]).all()
    for n, origin in enumerate(forecasts.origins):
        alone = forecaster.predict(X[origin : origin + 3], after=(X[:origin], WAVE[:origin]))
        np.testing.assert_allclose(alone, forecasts.predicted[n, :, 0], rtol=1e-5)
        low, _ = forecaster.predict_interval(X[origin : origin + 3], after=(X[:origin], WAVE[:origin]))
        np.testing.assert_allclose(low, forecasts.intervals[0.8][0][n, :, 0], rtol=1e-5)


def test_what_is_not_known_in_advance_is_never_read():
    X = np.stack([T % 5, np.cos(T / 3)], axis=1)
    forecaster = fitted(WAVE, X, known=[0])
    future = X[-3:].copy()
    want = forecaster.predict(future)
    future[:, 1] = 1e6
    assert (forecaster.predict(future) == want).all()
    future[:, 0] += 1
    assert (forecaster.predict(future) != want).any()
    nothing_known = fitted(WAVE, X, known=[])
    assert nothing_known.predict().shape == (3,)
    with pytest.raises(ShapeError, match="steps: expected at most horizon = 3"):
        nothing_known.predict(steps=4)


def test_the_future_never_reaches_the_scale():
    """The part held out is not in the mean and the spread by which the data are standardised."""
    changed = WAVE.copy()
    changed[-16:] *= 100
    first, second = fitted(WAVE, epochs=1), fitted(changed, epochs=1)
    assert first._center == second._center and first._scale == second._scale
    assert first._center == WAVE[:144].mean()


def test_a_forecast_longer_than_the_horizon_goes_on_from_its_own(plain):
    first = plain.predict()
    second = plain.predict(after=np.concatenate([WAVE, first]))
    np.testing.assert_allclose(plain.predict(steps=6), np.concatenate([first, second]), rtol=1e-4, atol=1e-5)
    low, high = plain.predict_interval(steps=30)
    assert (low <= high).all()
    assert (plain.predict_interval(steps=30)[0] == low).all()  # the futures drawn are the same in every call


def test_update_takes_newer_data():
    forecaster = fitted(WAVE[:120])
    want = forecaster.predict(after=WAVE)
    assert (forecaster.update(WAVE).predict() == want).all()
    with pytest.raises(ShapeError, match="after: expected at least 12 rows"):
        forecaster.update(WAVE[:5])


def test_patches_and_relative_forecasts():
    """A forecast of changes moves with the level of its window; a constant added to the data is added to it."""
    relative = fitted(WAVE, patch=4, coverages=())
    np.testing.assert_allclose(relative.predict(after=WAVE + 5), relative.predict() + 5, rtol=1e-4)
    absolute = fitted(WAVE, patch=4, coverages=(), relative=False)
    assert np.abs(absolute.predict(after=WAVE + 5) - absolute.predict() - 5).max() > 1
    with pytest.raises(ShapeError, match="window: expected a multiple of patch = 5, got 12"):
        fitted(patch=5)


def test_the_loss_is_squared_error_and_pinball():
    model = fitted(epochs=1).model_
    generator = np.random.default_rng(0)
    prediction, truth = generator.normal(size=(3, 2, 1, 5)), generator.normal(size=(3, 2, 1))
    error = truth[..., None] - prediction[..., 1:]
    q = np.array([0.1, 0.9, 0.025, 0.975])
    want = ((truth - prediction[..., 0]) ** 2).mean() + np.where(error > 0, q * error, (q - 1) * error).mean()
    assert model.quantiles == pytest.approx(q)
    assert forecast_loss(model, tensor(prediction), truth).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window: expected a whole number from 1"),
        ({"horizon": 0}, "horizon: expected a whole number from 1"),
        ({"hidden_size": 1.5}, "hidden_size"),
        ({"coverages": (0.8, 1.0)}, "coverages: expected shares above 0 and below 1"),
        ({"coverages": 0.8}, "coverages: expected a tuple"),
        ({"dropout": 1.0}, "dropout"),
        ({"learning_rate": 0}, "learning_rate: expected a number above 0"),
        ({"validation_fraction": -0.1}, "validation_fraction"),
        ({"known": [2]}, "known: expected a column of X"),
        ({"known": "a"}, "known: expected a list of columns"),
        ({"known": ["a"]}, "known: expected one of the columns of X"),
        ({"noise": -1}, "noise"),
        ({"random_state": -1}, "random_state"),
        ({"dtype": "float16"}, "dtype"),
        ({"patience": 0}, "patience"),
    ],
)
def test_wrong_parameters_are_named(options, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        fitted(WAVE, np.zeros((N, 2)), **options)


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.full(50, np.nan), None, "y: expected finite numbers, got NaN in row 0, column 0"),
        (WAVE[:10], None, "y: expected at least 15 rows"),
        (["a", "b"], None, "y: expected a table of numbers"),
        (np.zeros((N, 2, 2)), None, r"y: expected \(N, D\)"),
        (np.zeros((N - 1, 2)), WAVE, "X: expected 160 rows"),
        (np.zeros(N), WAVE, "X: expected"),
        (np.array([]), None, "at least one row"),
        (WAVE * 1j, None, "Complex"),
    ],
)
def test_wrong_data_are_named(X, y, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        Forecaster(**SMALL).fit(X, y)


def test_wrong_calls_are_named(plain):
    with pytest.raises(NotFitted, match="Forecaster: expected a fitted one"):
        Forecaster().predict()
    with pytest.raises(ShapeError, match="X: expected None, as in fit, which had no covariates"):
        plain.predict(np.zeros((3, 1)))
    with pytest.raises(ShapeError, match=r"coverage: expected one of coverages"):
        plain.predict_interval(coverage=0.5)
    with pytest.raises(ShapeError, match="start: expected a whole number from 12"):
        plain.backtest(WAVE, start=5)
    with pytest.raises(ShapeError, match="start: expected at most 157"):
        plain.backtest(WAVE, start=159)
    with pytest.raises(ShapeError, match="hidden: expected a parameter of Forecaster"):
        plain.set_params(hidden=3)


def test_parameters_as_scikit_learn_has_them(plain):
    assert plain.get_params()["window"] == 12
    assert repr(Forecaster(window=5, horizon=1)) == "Forecaster(window=5)"
    assert plain.__sklearn_is_fitted__() and not Forecaster().__sklearn_is_fitted__()
    assert Forecaster().set_params(epochs=3).epochs == 3


def test_a_fit_that_fails_leaves_the_forecaster_as_it_was(monkeypatch):
    forecaster = fitted()
    want = forecaster.predict()
    with pytest.raises(ShapeError):
        forecaster.fit(WAVE[:4])
    assert (forecaster.predict() == want).all() and forecaster.window_ == 12

    def dying(self, model, batch, state):
        raise Interrupted

    monkeypatch.setattr(Forecaster, "_loss", dying)
    with pytest.raises(Interrupted):
        forecaster.fit(WAVE * 1000 + 7)
    assert (forecaster.predict() == want).all()
    fresh = Forecaster(**SMALL)
    with pytest.raises(Interrupted):
        fresh.fit(WAVE)
    assert not fresh.__sklearn_is_fitted__()


@pytest.mark.parametrize(
    "changed", [{"horizon": 4}, {"coverages": (0.1, 0.2)}, {"relative": False}, {"window": 6}, {"hidden_size": 9}]
)
def test_what_the_model_is_made_of_cannot_be_set_afterwards(tmp_path, changed):
    forecaster = fitted()
    forecaster.set_params(epochs=9, **changed)
    for call in (
        forecaster.predict,
        lambda: forecaster.score(WAVE),
        lambda: forecaster.save(tmp_path / "f.safetensors"),
    ):
        with pytest.raises(ShapeError, match=f"{next(iter(changed))}: expected .*, as in fit.., got"):
            call()
    forecaster.set_params(**{name: SMALL.get(name, getattr(Forecaster(), name)) for name in changed})
    assert forecaster.predict().shape == (3,)


def test_scores_of_a_truth_that_never_changes(plain):
    """scikit-learn's rule: 0, as there is nothing to explain, but for an exact forecast."""
    assert plain.score(np.full(3, 1000.0)) == 0.0 and plain.score(WAVE[:1]) == 0.0


def test_what_is_constant_but_for_rounding_is_not_scaled_up():
    X = np.full((N, 1), 0.1)
    forecaster = fitted(WAVE, X)
    assert forecaster._scale[1] == 1.0
    assert np.abs(forecaster.predict(np.full((3, 1), 0.2))).max() < 10
    flat, truth = np.full((100, 1), 0.1), np.full((4, 3, 1), 0.3)
    measures = Measures.of(truth - 0.2, truth, flat, 1)
    assert measures.scaled_mse == pytest.approx(0.04) and np.isnan(measures.mase)
    both = Measures.of(np.zeros((4, 3, 2)), np.ones((4, 3, 2)), np.stack([flat[:, 0], np.arange(100) % 2], 1), 1)
    assert both.mase == pytest.approx(1.0)
    with pytest.raises(ShapeError, match="y: expected numbers whose squares are finite"):
        fitted(WAVE * 1e200)


def test_names_of_columns_are_held_against_those_of_fit():
    class Frame:
        def __init__(self, columns, values):
            self.columns, self.values = columns, values

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.values, dtype)

    X = np.stack([T % 5, np.cos(T / 3)], axis=1)
    forecaster = Forecaster(**SMALL, known=["b"]).fit(Frame(["a", "b"], X), WAVE)
    assert forecaster.feature_names_in_.tolist() == ["a", "b"] and forecaster._layout.known == [1]
    with pytest.raises(ShapeError, match="feature names should match"):
        forecaster.predict(Frame(["b", "a"], X[:3]))


# -- scikit-learn --------------------------------------------------------------------------------------------

# What a forecast of a series cannot be: free of the order of its rows, or of the rows before.
ORDER = {"check_methods_sample_order_invariance", "check_methods_subset_invariance"}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, on what is not installed
def test_scikit_learns_own_checks():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(Forecaster(epochs=2, random_state=0, device="cpu"), on_fail=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == ORDER
    assert sum(result["status"] == "passed" for result in results) > 40


@pytest.mark.oracle
def test_in_pipelines_and_searches():
    pytest.importorskip("sklearn")
    from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = TimeSeriesSplit(3, test_size=3)
    scores = cross_val_score(Forecaster(**SMALL), WAVE, cv=folds)
    assert scores.shape == (3,) and np.isfinite(scores).all()
    X = np.stack([T % 5, np.cos(T / 3)], axis=1)
    search = GridSearchCV(Forecaster(**SMALL), {"window": [6, 12]}, cv=folds).fit(X, WAVE)
    assert search.best_estimator_.predict(X[-3:]).shape == (3,)
    pipeline = make_pipeline(StandardScaler(), Forecaster(**SMALL)).fit(X, WAVE)
    assert pipeline.predict(X[-3:]).shape == (3,)


# -- files ---------------------------------------------------------------------------------------------------


def test_a_saved_forecaster_is_the_same(tmp_path):
    X = np.stack([T % 5, np.cos(T / 3)], axis=1)
    forecaster = fitted(WAVE, X, known=(0,), num_layers=2, dropout=0.2, patch=3)
    forecaster.save(tmp_path / "f.safetensors")
    again = Forecaster.load(tmp_path / "f.safetensors", "cpu")
    assert (again.predict(X[:3]) == forecaster.predict(X[:3])).all()
    assert (again.predict_interval(X[:2])[0] == forecaster.predict_interval(X[:2])[0]).all()
    assert again.get_params() == forecaster.get_params()
    again.save(tmp_path / "g.safetensors")
    assert (tmp_path / "g.safetensors").read_bytes() == (tmp_path / "f.safetensors").read_bytes()
    with pytest.raises(NotFitted):
        Forecaster().save(tmp_path / "h.safetensors")


def broken(header, arrays):
    """(what is wrong, a header and arrays in which it is)."""

    def changed(part, **values):
        return {**header, part: {**header[part], **values}}

    yield "kind", {**header, "kind": "text model"}, arrays
    yield "version", {**header, "version": 2}, arrays
    yield "no params", {k: v for k, v in header.items() if k != "params"}, arrays
    yield "an unknown parameter", changed("params", colour=1), arrays
    yield "sizes of a giant", changed("params", hidden_size=10**9), arrays
    yield "layers of a giant", changed("params", num_layers=10**9), arrays
    yield "a horizon of a giant", changed("params", horizon=10**9), arrays
    yield "a patch of a giant", changed("params", patch=10**9), arrays
    yield "a text for a number", changed("params", hidden_size="8"), arrays
    yield (
        "other columns",
        changed("fitted", layout={"targets": 10**6, "covariates": 0, "known": [], "flat": True}),
        arrays,
    )
    yield "no numbers", changed("fitted", center=["a"]), arrays
    yield "numbers that are not finite", changed("fitted", scale=[float("inf")]), arrays
    yield "no window", changed("fitted", window=None), arrays
    yield (
        "known columns that there are not",
        changed("fitted", layout={"targets": 1, "covariates": 0, "known": [3], "flat": True}),
        arrays,
    )
    yield "a missing array", header, {k: v for k, v in arrays.items() if k != "linear.bias"}
    yield "an array too many", header, {**arrays, "more": np.zeros(3, np.float32)}
    yield "an array of another shape", header, {**arrays, "lstm.bias_hh_l0": np.zeros(3, np.float32)}
    yield "an array that is not finite", header, {**arrays, "linear.bias": arrays["linear.bias"] * np.nan}


def test_files_of_strangers_are_refused_by_name(tmp_path, plain):
    file = tmp_path / "f.safetensors"
    plain.save(file)
    arrays, metadata = load_arrays(file)
    for _, header, others in broken(json.loads(metadata[HEADER]), arrays):
        save_arrays(file, others, {HEADER: json.dumps(header)})
        with pytest.raises(FormatError, match=r"f\.safetensors: expected"):
            Forecaster.load(file, "cpu")
    file.write_bytes(b"no model")
    with pytest.raises(FormatError):
        Forecaster.load(file)


@pytest.mark.parametrize("step", [3, 7, 11])
def test_a_run_stopped_in_any_step_goes_on_to_the_same_bits(tmp_path, monkeypatch, step):
    options = {**SMALL, "dropout": 0.2, "noise": 0.1, "epochs": 3}
    whole = Forecaster(**options).fit(WAVE, run=Run(RunFiles.of(tmp_path / "a.safetensors"), checkpoint_every=2))
    run = {"files": RunFiles.of(tmp_path / "b.safetensors"), "checkpoint_every": 2}
    calls, loss = iter(range(1, 1000)), Forecaster._loss

    def dying(self, model, batch, state):
        if model.training and next(calls) == step:
            raise Interrupted
        return loss(self, model, batch, state)

    monkeypatch.setattr(Forecaster, "_loss", dying)
    with pytest.raises(Interrupted):
        Forecaster(**options).fit(WAVE, run=Run(**run))
    monkeypatch.undo()
    best_so_far = Forecaster.load(tmp_path / "b.checkpoint.safetensors", "cpu")
    assert best_so_far.predict().shape == (3,)
    resumed = Forecaster(**options).fit(WAVE, run=Run(**run, resume=True))
    assert (resumed.predict() == whole.predict()).all()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_run_of_other_data_or_parameters_is_not_gone_on_with(tmp_path):
    run = {"files": RunFiles.of(tmp_path / "a.safetensors")}
    Forecaster(**SMALL).fit(WAVE, run=Run(**run))
    with pytest.raises(FileExists, match=r"a\.safetensors"):
        Forecaster(**SMALL).fit(WAVE, run=Run(**run))
    with pytest.raises(FormatError, match="the training data differ"):
        Forecaster(**SMALL).fit(WAVE * 2, run=Run(**run, resume=True))
    with pytest.raises(FormatError, match="window: expected 12, as at the start, got 6"):
        Forecaster(**{**SMALL, "window": 6}).fit(WAVE, run=Run(**run, resume=True))
    more = Forecaster(**{**SMALL, "epochs": 4}).fit(WAVE, run=Run(**run, resume=True))
    assert more.n_iter_ == 4


# -- baselines -----------------------------------------------------------------------------------------------


def test_the_simple_forecasts():
    y = np.arange(20.0)[:, None]
    origins = np.array([10, 15])
    assert last_value(y, origins, 2)[..., 0].tolist() == [[9, 9], [14, 14]]
    assert seasonal(y, origins, 5, 3)[..., 0].tolist() == [[7, 8, 9, 7, 8], [12, 13, 14, 12, 13]]


def test_the_linear_forecast_finds_a_linear_rule():
    generator = np.random.default_rng(0)
    y = np.zeros((400, 2))
    for t in range(2, 400):
        y[t] = 1.8 * y[t - 1] - 0.8 * y[t - 2] + generator.normal(size=2)
    ridge = Ridge(y, 8, 1, 250, 320)
    origins = np.arange(320, 400)
    want = 1.8 * y[origins - 1] - 0.8 * y[origins - 2]
    assert np.abs(ridge(y, origins)[:, 0] - want).mean() < 0.3
    assert np.abs(y[origins - 1] - want).mean() > 0.6


def test_the_measures():
    predicted, truth = np.array([[[1.0], [2.0]]]), np.array([[[2.0], [4.0]]])
    training = np.array([[0.0], [1.0], [3.0]])
    measures = Measures.of(predicted, truth, training, 1)
    assert measures.mae == 1.5 and measures.mse == 2.5
    assert measures.scaled_mse == pytest.approx(2.5 / training.var())
    assert measures.mase == pytest.approx(1.5 / 1.5)
    assert measures.smape == pytest.approx((200 / 3 + 200 * 2 / 6) / 2)


# -- times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "following"),
    [
        (["2024-01-30", "2024-01-31"], ["2024-02-01", "2024-02-02"]),
        (["2024-01-31", "2024-02-29", "2024-03-31"], ["2024-04-30", "2024-05-31"]),
        (["2023-11-15", "2023-12-15"], ["2024-01-15", "2024-02-15"]),
        (["2020-02-29", "2021-02-28", "2022-02-28"], ["2023-02-28", "2024-02-29"]),
        (["2023-10-01", "2024-01-01", "2024-04-01"], ["2024-07-01", "2024-10-01"]),
        (["2020-11-30", "2020-12-30", "2021-01-30"], ["2021-02-28", "2021-03-30"]),
        (["2021-01-30", "2021-02-28", "2021-03-30"], ["2021-04-30", "2021-05-30"]),
        (["2024-01-01 22:00", "2024-01-01 23:00"], ["2024-01-02 00:00", "2024-01-02 01:00"]),
        ([f"2024-01-{d:02d}" for d in (1, 2, 3, 4, 5, 8, 9, 10, 11)], ["2024-01-12", "2024-01-15"]),
    ],
)
def test_the_times_that_follow(times, following):
    clock = Clock.of([datetime.fromisoformat(time) for time in times])
    want = [datetime.fromisoformat(time) for time in following]
    assert clock.next(2) == want
    assert Clock.from_json(json.loads(json.dumps(clock.to_json()))).next(2) == want


def test_times_end_with_the_year_9999():
    with pytest.raises(FormatError, match="expected dates up to the year 9999, got one after 9999-12-31"):
        Clock.of([datetime(9999, 12, 29), datetime(9999, 12, 30)]).next(2)


def test_hours_where_clocks_are_put_back_are_told_apart():
    times = [parse(f"2024-10-27T0{h}:00{zone}", None) for h, zone in ((1, "+02:00"), (2, "+02:00"), (2, "+01:00"))]
    assert Step.of(times) == Step("span", 3600.0) and times[-1] == datetime(2024, 10, 27, 1)


def test_many_uneven_times_take_no_quadratic_time():
    times = np.sort(np.random.default_rng(0).random(200_000)).tolist()
    assert Step.of(times).kind == "number"


@pytest.mark.parametrize(
    "clock",
    [
        [], None, ["x"], [1.0, "number", 0, 31], [1.0, "number", float("nan"), 31], ["2024-01-01", "number", 1, 31],
        [1.0, "span", 5, 31], ["2024-01-01", "months", 1, 99], [float("inf"), "number", 1, 31], ["?", "span", 1, 31],
    ],
)  # fmt: skip
def test_clocks_of_strangers(clock):
    with pytest.raises((TypeError, ValueError)):
        Clock.from_json(clock)


def test_numbers_are_times_too():
    assert Clock.of([1700.0, 1701.0]).next(2) == [1702.0, 1703.0]
    assert Clock.of([0.1, 0.2, 0.3]).next(1) == [pytest.approx(0.4)]
    assert Step.of([5.0]) == Step("number", 1)


# -- CSV files -----------------------------------------------------------------------------------------------


def table(tmp_path, text, columns=(), name="t.csv", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, Options(**options), columns)


@pytest.mark.parametrize(
    ("text", "names", "first", "time"),
    [
        ("date,a,b\n2024-01-01,1,2\n2024-01-02,3,4\n", ["a", "b"], [1, 2], datetime(2024, 1, 1)),
        ("a;b\n1;2\n3;4\n", ["a", "b"], [1, 2], None),
        ("1\t2\n3\t4\n", ["1", "2"], [1, 2], None),
        ("2024-01-01,1\n2024-01-02,3\n", ["2"], [1], datetime(2024, 1, 1)),
        ("\ufeffyear,n\n1700,5\n1701,6\n", ["n"], [5], 1700.0),
        ('"a","b, c"\n1,2\n\n3,4\n', ["a", "b, c"], [1, 2], None),
        ("7\n8\n9\n", ["1"], [7], None),
        ("date,a\r\n20240101,1\r\n20240102,2\r\n", ["a"], [1], datetime(2024, 1, 1)),
        ("day,x\n2024-01-01T00:00:00Z,1e3\n2024-01-02T00:00:00Z,2\n", ["x"], [1000], datetime(2024, 1, 1)),
    ],
)
def test_tables_of_many_kinds(tmp_path, text, names, first, time):
    read = table(tmp_path, text)
    assert read.names == names and read.values[0].tolist() == first
    assert (read.times or [None])[0] == time
    packed = table(tmp_path, gzip.compress(text.encode(), mtime=0), name="t.csv.gz")
    assert (packed.values == read.values).all() and packed.times == read.times


def test_columns_dates_and_encodings_by_option(tmp_path):
    text = "größe|wann|name\n1|31.01.2024|x\n2|01.02.2024|y\n"
    read = table(tmp_path, text.encode("latin-1"), ["größe"], date="wann", date_format="%d.%m.%Y", encoding="latin-1")
    assert read.values.tolist() == [[1], [2]] and read.times == [datetime(2024, 1, 31), datetime(2024, 2, 1)]
    assert table(tmp_path, "a,b,c\n1,2,3\n4,5,6\n", ["3", "a"]).values.tolist() == [[3, 1], [6, 4]]
    assert table(tmp_path, "year,a\n1,2\n1,3\n", date="none").names == ["year", "a"]


def test_gaps_and_missing_values_are_filled_when_asked(tmp_path):
    text = "date,a\n2024-01-01,1\n2024-01-02,\n2024-01-03,3\n2024-01-06,4\n2024-01-07,5\n"
    read = table(tmp_path, text, fill=True)
    assert read.values[:, 0].tolist() == [1, 1, 3, 3, 3, 4, 5] and read.times[3] == datetime(2024, 1, 4)
    text = text.replace("2024-01-02,\n", "")
    assert table(tmp_path, text, gaps=True).values[:, 0].tolist() == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "expected a table, got an empty file"),
        ("a,b\n", {}, "expected rows of numbers after the header, got none"),
        ("a,a\n1,2\n", {}, "expected different column names, got a"),
        ("date\n2024-01-01\n", {}, "expected a column of numbers besides date"),
        ("a,b\n1,2\n3\n", {}, "line 3: expected 2 cells, got 1"),
        ("a\n1\nx\n", {}, "line 3: a: expected a number, got 'x'"),
        ("a\n1\ninf\n", {}, "line 3: a: expected a finite number"),
        ("a,b\n1,2\n3,\nNA,4\n", {}, "missing values in line 3 .b., line 4 .a.; --fill"),
        (
            "date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-02,3\n",
            {},
            "line 4: expected a later time than in line 3, got 2024",
        ),
        ("date,a\n2024-01-02,1\n2024-01-01,2\n", {}, "line 3: expected rows in order of time"),
        ("date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-05,3\n", {}, r"between lines 3 and 4 \(2024-01-02 to 2024-01-05"),
        ("date,a\n2024-01-01,1\n7,2\n", {}, "line 3: expected a time like 2024-01-01, got 7"),
        ("date,a\n2024-13-01,1\n", {}, "line 2: date: expected a date like 2024-01-31"),
        ("date,a\n2024-01-01,\n2024-01-02,1\n", {"fill": True}, "line 2: expected no missing value in the first row"),
        ("a\n1\n", {"delimiter": ",,"}, "delimiter: expected one character"),
        ("a\n1\n", {"date": "b"}, "date: expected one of the columns a, or 1 to 1, got 'b'"),
        ("a\n1\n", {"encoding": "klingon"}, "encoding: expected e.g. utf-8"),
        ("a\n1_000\n", {}, "line 2: a: expected a number, got '1_000'"),
        ("t,a\n0,1\n1,1\n2,1\n10000000000000,1\n", {"date": "t"}, r"between lines 4 and 5 .2 to 1e.13."),
        ("t,a\n0,1\n1,1\n2,1\n10000000000000,1\n", {"date": "t", "fill": True}, "expected gaps small enough to fill"),
        (b"a\n1\n\xff\n", {}, "t.csv: expected UTF-8 text, got byte 0xff"),
        (b"a\n1\n\0\n", {}, "binary data .a zero byte in line 3"),
        (gzip.compress(b"a\n" + b"1\n" * 9999, mtime=0)[:-20], {}, "expected a whole gzip file"),
    ],
)
def test_faults_are_named_by_line(tmp_path, text, options, words):
    with pytest.raises(FormatError, match=words):
        table(tmp_path, text, **options)


# -- the commands --------------------------------------------------------------------------------------------

QUICK = ["--window", "12", "--horizon", "3", "--hidden", "8", "--epochs", "2", "--device", "cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a file of two columns and a covariate."""
    monkeypatch.chdir(tmp_path)
    start = datetime(2024, 1, 1)
    with (tmp_path / "s.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", "level", "other", "weekday"])
        for t in range(N):
            rows.writerow([f"{start + timedelta(days=t):%Y-%m-%d}", f"{5 + WAVE[t]:.4f}", f"{WAVE[t] ** 2:.4f}", t % 7])
    return tmp_path


def forecast(*args):
    return _run(["forecast", *args])


def test_the_default_command_and_what_it_leaves(here, capsys):
    assert forecast("train", "--epochs", "3", "--window", "24", "--device", "cpu") == 0
    said = capsys.readouterr().out
    for words in ("series: sunspots, 309 rows", "LSTM", "last value", "value 11 rows ago", "linear on 24 rows", "80%"):
        assert words in said
    assert {path.name for path in here.iterdir()} == {
        "s.csv", "forecast.safetensors", "forecast.checkpoint.safetensors", "forecast.png"
    }  # fmt: skip
    assert (here / "forecast.png").read_bytes().startswith(b"\x89PNG")
    assert forecast("predict", "forecast.safetensors", "--steps", "3") == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0][:3] == ["time", "sunspots", "sunspots low 80%"]
    assert [row[0] for row in rows[1:]] == ["2009", "2010", "2011"]
    assert forecast("info", "forecast.safetensors") == 0
    assert "Forecaster(" in capsys.readouterr().out


def test_covariates_from_a_file_and_a_forecast_of_newer_rows(here, capsys):
    names = ["--target", "level", "--known", "weekday", "--past", "other"]
    assert forecast("train", "s.csv", *names, *QUICK, "--out", "m.safetensors", "--plot", "loss.png", "-q") == 0
    assert capsys.readouterr().out == ""
    (here / "future.csv").write_text("weekday\n1\n2\n3\n")
    assert forecast("predict", "m.safetensors", "--future", "future.csv") == 0
    first = capsys.readouterr().out
    assert first.splitlines()[1].startswith("2024-06-09,")
    assert forecast("predict", "m.safetensors", "s.csv", "--future", "future.csv") == 0
    assert capsys.readouterr().out == first  # the model goes on from all rows that it was given
    newer = (here / "s.csv").read_text().splitlines()
    (here / "newer.csv").write_text("\n".join([*newer, "2024-06-09,5.1,0.1,6"]))
    assert forecast("predict", "m.safetensors", "newer.csv", "--future", "future.csv") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("2024-06-10,")
    assert forecast("predict", "m.safetensors") == 2
    assert "X: expected the covariates of the rows to forecast" in capsys.readouterr().err


def test_predictions_refuse_what_they_cannot_use(here, capsys):
    assert forecast("train", "s.csv", "--target", "level", *QUICK, "-q") == 0
    (here / "future.csv").write_text("weekday\n1\n2\n3\n")
    (here / "short.csv").write_text("date,level\n2024-01-01,1\n2024-01-02,2\n")
    (here / "other.csv").write_text("a\n1\n2\n")
    Forecaster(**SMALL).fit(WAVE).save("own.safetensors")
    for args, words in (
        (["forecast.safetensors", "--future", "future.csv"], "future: expected no file"),
        (["forecast.safetensors", "--steps", "0"], "steps: expected a whole number from 1"),
        (["forecast.safetensors", "short.csv"], "after: expected at least 12 rows"),
        (["forecast.safetensors", "other.csv"], "expected one of the columns a"),
        (["forecast.safetensors", "none.csv"], "none.csv"),
        (["none.safetensors"], "none.safetensors"),
        (["s.csv"], "s.csv: not a whole safetensors file"),
        (["own.safetensors"], "expected a model of `gpulstm forecast train`"),
    ):
        assert forecast("predict", *args) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and words in said.err


def test_columns_by_position_are_those_of_the_file(here, capsys):
    """With a column of dates before them, and whichever are read."""
    names = ["--target", "other", "--known", "weekday", "--past", "level"]
    positions = ["--target", "3", "--known", "4", "--past", "2"]
    for args, out in ((names, "a.safetensors"), (positions, "b.safetensors"), (["--past", "3"], "c.safetensors")):
        assert forecast("train", "s.csv", *args, *QUICK, "--out", out) == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()
    assert "series: level, weekday," in capsys.readouterr().out
    (here / "future.csv").write_text("weekday\n1\n2\n3\n")
    assert forecast("predict", "b.safetensors", "--future", "future.csv") == 0


@pytest.mark.parametrize("option", ["--out", "--log", "--plot", "--picture"])
def test_force_never_overwrites_what_is_read(here, option, capsys):
    (here / "s.csv").rename(here / "s.png")
    before = (here / "s.png").read_bytes()
    assert forecast("train", "s.png", "--target", "level", *QUICK, option, "s.png", "--force") == 2
    assert "is already an input FILE" in capsys.readouterr().err and (here / "s.png").read_bytes() == before


def test_the_future_is_held_against_the_clock(here, capsys):
    names = ["--target", "level", "--known", "weekday"]
    assert forecast("train", "s.csv", *names, *QUICK, "--out", "m.safetensors", "-q") == 0
    (here / "future.csv").write_text("date,weekday\n1999-01-01,1\n1999-01-02,2\n")
    assert forecast("predict", "m.safetensors", "--future", "future.csv") == 2
    assert "expected the first row at 2024-06-09, the step after the data, got 1999-01-01" in capsys.readouterr().err
    (here / "future.csv").write_text("date,weekday\n2024-06-09,1\n2024-06-10,2\n")
    assert forecast("predict", "m.safetensors", "--future", "future.csv", "--steps", "9") == 2
    assert "steps: expected 2, the number of rows in future.csv" in capsys.readouterr().err
    assert forecast("predict", "m.safetensors", "--future", "future.csv") == 0
    assert forecast("predict", "m.checkpoint.safetensors", "--future", "future.csv") == 0


@pytest.mark.parametrize(
    "broken",
    [{"target": 1}, {"target": [1]}, {"known": "level"}, {"past": None}, {"file": None}, {"file": {}}, {"horizon": "3"},
     {"clock": None}, {"clock": [1, 2]}, {"returns": "no"}],
)  # fmt: skip
def test_a_strangers_facts_are_refused_in_one_line(here, broken, capsys):
    assert forecast("train", "s.csv", "--target", "level", *QUICK, "-q", "--out", "m.safetensors") == 0
    arrays, metadata = load_arrays("m.safetensors")
    header = json.loads(metadata[HEADER])
    header["facts"]["forecast"] |= broken
    save_arrays("m.safetensors", arrays, {HEADER: json.dumps(header)})
    assert forecast("predict", "m.safetensors") == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "m.safetensors: expected a model of" in said.err


def test_returns_stand_beside_the_random_walk(here, capsys):
    generator = np.random.default_rng(0)
    prices = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, N)))
    (here / "p.csv").write_text("close\n" + "\n".join(f"{price:.6f}" for price in prices))
    assert forecast("train", "p.csv", "--returns", *QUICK) == 0
    said = capsys.readouterr().out
    assert "random walk (no change)" in said and "the LSTM does not beat the random walk" in said
    (here / "p.csv").write_text("close\n1\n0\n2\n")
    assert forecast("train", "p.csv", "--returns", *QUICK, "--force") == 2
    assert "returns: expected at least 2 values, all above 0" in capsys.readouterr().err


def test_a_resumed_command_gives_the_same_bits(here, capsys):
    args = ["train", "s.csv", "--target", "level", *QUICK, "--dropout", "0.2", "--noise", "0.1"]
    assert forecast(*args, "--out", "a.safetensors", "--epochs", "4") == 0
    assert forecast(*args, "--out", "b.safetensors", "--epochs", "4", "--checkpoint-every", "1") == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()
    assert forecast(*args, "--out", "a.safetensors", "--epochs", "4") == 2
    assert "a.safetensors" in capsys.readouterr().err
    assert forecast(*args, "--out", "a.safetensors", "--epochs", "4", "--resume") == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.csv"], "none.csv"),
        (["."], "."),
        (["s.csv", "--target", "nothing"], "expected one of the columns"),
        (["s.csv", "--target", "level", "--known", "level"], "columns: expected different columns, got level, level"),
        (["s.csv", "--target", "1"], "date: expected a number"),
        (["s.csv", "--horizon", "0"], "horizon"),
        (["s.csv", "--window", "500"], "y: expected at least"),
        (["s.csv", "--test", "1.5"], "test: expected a share"),
        (["s.csv", "--test", "0"], "test: expected a share"),
        (["s.csv", "--validation", "1"], "validation_fraction"),
        (["s.csv", "--coverage", "2"], "coverages: expected"),
        (["s.csv", "--rows", "999"], "rows: expected"),
        (["s.csv", "--season", "0"], "season"),
        (["s.csv", "--hidden", "0"], "hidden_size"),
        (["s.csv", "--batch", "x"], "batch"),
        (["s.csv", "--seed", "-1"], "random_state"),
        (["s.csv", "--out", "no/such/m.safetensors"], "cannot be written"),
        (["s.csv", "--picture", "p.xyz"], "p.xyz"),
        (["s.csv", "--plot", "forecast.png", "--picture", "forecast.png"], "--picture"),
        (["s.csv", "--out", "s.csv"], "s.csv"),
        (["s.csv", "--out", ""], "expected a file"),
        (["s.csv", "--out", "."], "expected a file"),
        (["s.csv", "--checkpoint-every", "0"], "checkpoint_every"),
        (["s.csv", "--patch", "5"], "window: expected a multiple"),
        (["s.csv", "--encoding", "utf-16"], "utf-16"),
        (["s.csv", "--device", "cuda:99"], "cuda"),
        (["s.csv", "--recursive", "--past", "other", "--target", "level"], "recursive: expected no --past"),
    ],
)
def test_broken_input_is_refused_in_one_line(here, args, words, capsys):
    before = {path.name for path in here.iterdir()}
    contents = (here / "s.csv").read_bytes()
    usual = [
        word for name, value in zip(QUICK[::2], QUICK[1::2], strict=True) if name not in args for word in (name, value)
    ]
    assert forecast("train", *args, *usual) == 2
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("gpulstm: error: ") and words in last
    assert (here / "s.csv").read_bytes() == contents
    left = {path.name for path in here.iterdir()} - before
    assert not {name for name in left if not name.startswith("forecast")}


def test_the_benchmark_runs(tmp_path, capsys):
    from benchmarks import forecast as benchmark

    assert benchmark.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "value 11 rows ago" in capsys.readouterr().out
    rows = json.loads((tmp_path / "forecast-etth1.json").read_text())["rows"]
    assert [row["seed"] for row in rows if row["who"] == "gpulstm"] == [0, 1]
    assert benchmark.main(["--data", str(tmp_path / "none.csv")]) == 2
