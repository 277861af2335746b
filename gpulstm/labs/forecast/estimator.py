"""Forecaster: forecasts time series with covariates and prediction intervals; a scikit-learn-style estimator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from gpulstm import checks, random
from gpulstm.backend import backend_of
from gpulstm.data import Windows
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.labs.estimator import Estimator, Run, whole_or_not_at_all
from gpulstm.labs.forecast.layout import Layout, spread_of
from gpulstm.labs.forecast.model import ForecastModel, forecast_loss, with_noise
from gpulstm.labs.forecast.rollout import PATHS, Bounds, Rollout, levels_of
from gpulstm.labs.inputs import digest_of
from gpulstm.nn import Module
from gpulstm.nn.contexts import evaluation
from gpulstm.tape import no_grad

BLOCK = 1024  # windows forecast at once


@dataclass(frozen=True)
class Forecasts:
    """Forecasts from many origins, with the true values: what ``Forecaster.backtest`` returns.

    A forecast has ``steps`` steps of K series; there are n forecasts.
    """

    origins: np.ndarray  # (n,): the row of each forecast's first step
    predicted: np.ndarray  # (n, steps, K)
    truth: np.ndarray  # (n, steps, K)
    intervals: Bounds  # by coverage: (lower, upper), each (n, steps, K)


@dataclass(kw_only=True, eq=False, repr=False)
class Forecaster(Estimator):
    """Forecasts one or several time series from a window of past values, with or without covariates.

    Train on a series with ``fit``; then ``predict`` returns the steps that follow and ``predict_interval`` their
    prediction intervals.

    >>> t = np.arange(240)
    >>> series = np.sin(t / 6) + 0.01 * t
    >>> forecaster = Forecaster(horizon=12, window=48, epochs=30, random_state=0).fit(series[:228])
    >>> forecaster.predict().shape                        # the 12 steps that follow the training data
    (12,)
    >>> low, high = forecaster.predict_interval(coverage=0.8)
    >>> bool(np.abs(forecaster.predict() - series[228:]).mean() < 0.3)
    True

    ``fit(y)`` trains on the series y, (N,) for one series or (N, K) for K series; a row is a time step. ``fit(X, y)``
    trains on y with the covariates X (N, D). ``predict(X)`` forecasts the ``len(X)`` rows that follow the training
    data. If no covariate is known in advance, ``predict(steps=n)`` forecasts n rows. ``after=y`` or ``after=(X, y)``
    forecasts the rows that follow other data. In ``cross_val_score`` use ``TimeSeriesSplit``: it forecasts each fold
    from the data before it.

    window
        Number of past rows that a forecast reads, a multiple of ``patch``. None means 24 plus twice the horizon, but at
        most a third of the series.
    horizon
        Number of steps predicted at once. A longer forecast continues from its own predictions (recursive forecasting),
        so with ``horizon=1`` every forecast of several steps is recursive.
    known
        The columns of X that are known in advance, by number or by name; None means all. The forecaster reads the other
        columns only up to the last past row.
    coverages
        The prediction intervals to train, as shares: (0.8, 0.95). () trains only the mean.
    patch
        Number of rows that the LSTM reads as one step: with 24 it reads hourly data day by day.
    relative
        True predicts changes from the last value, which suits levels such as prices and loads. False suits data that
        vary about a fixed mean, such as returns.
    noise
        Standard deviation of the noise that training adds to the past values of the series, after standardisation.

    Data are standardised with the mean and standard deviation of the training part. If holding out validation rows
    would leave too few for training, none are held out. Raises ShapeError or DTypeError for invalid data and
    parameters, NotFitted before ``fit``. The other parameters are those of ``Estimator``.
    """

    window: int | None = None
    horizon: int = 1
    known: Any = None
    coverages: tuple[float, ...] = (0.8, 0.95)
    patch: int = 1
    relative: bool = True
    noise: float = 0.0

    kind: ClassVar[str] = "forecaster"
    made_of: ClassVar = ("window", "horizon", "known", "coverages", "patch", "relative")

    @whole_or_not_at_all
    def fit(self, X: Any, y: Any = None, *, run: Run | None = None) -> Self:
        """Train on a series, ``fit(y)``, or on a series with covariates, ``fit(X, y)``; returns self.

        y is (N,) or (N, K), X (N, D). ``run`` is for commands: files, checkpoints, progress. Raises ShapeError for
        invalid shapes and for fewer rows than one window and one horizon, DTypeError for anything but numbers.
        """
        self.check_params()
        self._layout, table = Layout.of(X, y, self.known)
        self.n_features_in_ = self._layout.covariates or self._layout.targets
        if self._layout.names is not None:
            self.feature_names_in_ = np.array(self._layout.names, object)
        N = len(table)
        self.window_ = self._window_for(N)
        held_out = round(self.validation_fraction * N)
        if held_out and (N - held_out < self.window_ + self.horizon or held_out < self.horizon):
            held_out = 0  # too few rows to hold some out
        if self.window_ + self.horizon > N - held_out:
            raise ShapeError(
                f"y: expected at least {self.window_ + self.horizon} rows to train on, for a window of {self.window_} "
                f"and a horizon of {self.horizon}, got {N - held_out} (n_samples = {N}; 1 sample is not a series)"
            )
        cut = N - held_out
        with np.errstate(over="ignore", invalid="ignore"):
            self._center, self._scale = table[:cut].mean(axis=0), spread_of(table[:cut])
        if not np.isfinite([self._center, self._scale]).all():
            raise ShapeError(
                f"y: expected numbers whose squares are finite, got numbers up to {np.abs(table).max():.3g}"
            )
        self._recent = table[-self.window_ :]
        scaled = self._standardised(table)
        generator = self._generator()
        with random.using(generator):
            model = self._new_model()
            batches = Windows(
                scaled[:cut], self.window_, self.batch_size, stride=1, horizon=self.horizon, generator=generator
            )
            held = scaled[cut - self.window_ :] if held_out else None
            validation = None if held is None else Windows(held, self.window_, BLOCK, stride=1, horizon=self.horizon)
            self._train(model, self._loss, batches, validation, digest_of(table), run, tokens=_windows_in)
        return self

    def predict(self, X: Any = None, *, steps: int | None = None, after: Any = None) -> np.ndarray:
        """Forecast the mean of the next rows: (n,) for a series (N,), (n, K) for (N, K).

        X (n, D) holds the covariates of the rows to forecast. Without X, ``steps`` is the number of rows (default:
        ``horizon``). ``after`` is the past to continue from, y or (X, y); by default the training data. Raises
        NotFitted before ``fit``, and ShapeError for invalid data.
        """
        mean, _ = self._predict(X, steps, after, intervals=False)
        return self._layout.shaped(mean)

    def predict_interval(
        self, X: Any = None, *, coverage: float = 0.8, steps: int | None = None, after: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds (lower, upper) of the prediction interval that holds the truth with this probability.

        ``coverage`` is one of ``coverages``; each bound has the shape of ``predict``, and the other arguments are those
        of ``predict``. Raises ShapeError for another coverage, else as ``predict`` does.
        """
        self.check_is_fitted()
        if coverage not in self.coverages:
            raise ShapeError(f"coverage: expected one of coverages = {self.coverages}, got {coverage!r}")
        low, high = self._predict(X, steps, after, intervals=True)[1][coverage]
        return self._layout.shaped(low), self._layout.shaped(high)

    def score(self, X: Any, y: Any = None) -> float:
        """Return R², the coefficient of determination, of the forecast for the rows that follow the training data.

        Call it as ``score(y)`` or ``score(X, y)``, as in ``fit``, where y holds those rows. For several series it is
        the mean over the series. Raises as ``predict`` does.
        """
        self.check_is_fitted()
        layout = self._layout
        series = layout.table(X, y)[:, : layout.targets]
        predicted, _ = self._predict(X if layout.covariates else None, len(series), None, intervals=False)
        residual = ((series - predicted) ** 2).sum(axis=0)
        spread = ((series - series.mean(axis=0)) ** 2).sum(axis=0)
        # If the truth is constant, R² is undefined: return 1 for an exact forecast, else 0 (scikit-learn's rule).
        plain = np.where(residual == 0, 1.0, 0.0)
        return float(np.mean(np.where(spread > 0, 1 - residual / np.where(spread > 0, spread, 1), plain)))

    def update(self, X: Any, y: Any = None) -> Self:
        """Give newer data, ``update(y)`` or ``update(X, y)``; ``predict`` then continues from it, without training.

        Returns self. Only the last window of rows is kept. Raises ShapeError for fewer rows than a window.
        """
        self.check_is_fitted()
        self._recent = self._past_in(X if y is None else (X, y))
        return self

    def backtest(self, X: Any, y: Any = None, *, start: int, steps: int | None = None, stride: int = 1) -> Forecasts:
        """Forecast ``steps`` rows from each of the rows ``start, start + stride, ...``; returns a ``Forecasts``.

        Each forecast reads only the rows before its origin, and the model is not retrained (rolling origin, Tashman
        2000). Pass the data of ``fit`` with the rows to forecast appended: ``backtest(y, ...)`` or
        ``backtest(X, y, ...)``. Raises ShapeError if fewer rows than a window precede ``start`` or fewer than ``steps``
        follow it.
        """
        self.check_is_fitted()
        table = self._layout.table(X, y)
        steps = self.horizon if steps is None else checks.count("steps", steps, 1)
        checks.count("start", start, self.window_)
        origins = np.arange(start, len(table) - steps + 1, checks.count("stride", stride, 1))
        if origins.size == 0:
            raise ShapeError(
                f"start: expected at most {len(table) - steps}, to leave {steps} rows to forecast, got {start}"
            )
        scaled = self._standardised(table)
        means: list[np.ndarray] = []
        quantiles: list[np.ndarray] = []
        block = BLOCK if steps <= self.horizon or not self.coverages else max(1, BLOCK // PATHS)
        for first in range(0, len(origins), block):
            some = origins[first : first + block]
            past = scaled[some + np.arange(-self.window_, 0)[:, None]]  # (W, B, F)
            future = scaled[some + np.arange(steps)[:, None]]  # (steps, B, F)
            for kept, part in zip((means, quantiles), self._forecast(past, future), strict=True):
                kept.append(part.swapaxes(0, 1))  # (B, steps, K), (B, steps, K, Q)
        truth = table[origins[:, None] + np.arange(steps), : self._layout.targets]
        bounds = self._rollout().bounds(np.concatenate(quantiles))
        return Forecasts(origins, np.concatenate(means), truth, bounds)

    def future_rows(self, known: np.ndarray) -> np.ndarray:
        """Make the covariates (n, D) that ``predict`` takes from only the known columns, (n, number of known columns).

        The other columns are 0; ``predict`` does not read them. Raises ShapeError for another shape.
        """
        self.check_is_fitted()
        if known.ndim != 2 or known.shape[1] != len(self._layout.known) or not self._layout.known:
            want = f"(steps, {len(self._layout.known)}), the covariates known in advance"
            raise ShapeError(f"known: expected {want}, got {known.shape}")
        rows = np.zeros((len(known), self._layout.covariates))
        rows[:, self._layout.known] = known
        return rows

    # -- computing -------------------------------------------------------------------------------------------

    def _window_for(self, N: int) -> int:
        window = self.window
        if window is None:
            window = max(1, min(24 + 2 * self.horizon, N // 3) // self.patch) * self.patch
        if checks.count("window", window, 1) % self.patch:
            raise ShapeError(f"window: expected a multiple of patch = {self.patch}, got {window}")
        return window

    def _standardised(self, table: np.ndarray) -> np.ndarray:
        return ((table - self._center) / self._scale).astype(self.dtype)

    def check_params(self) -> None:
        """Raise ShapeError or DTypeError for an invalid parameter."""
        super().check_params()
        for name in ("horizon", "patch"):
            checks.count(name, getattr(self, name), 1)
        if self.window is not None:
            checks.count("window", self.window, 1)
        checks.number("noise", self.noise)
        checks.flag("relative", self.relative)
        if not isinstance(self.coverages, tuple | list):
            raise DTypeError(f"coverages: expected a tuple of shares, e.g. (0.8, 0.95), got {self.coverages!r}")
        for coverage in self.coverages:
            if not 0 < checks.number("coverages", coverage) < 1:
                raise ShapeError(f"coverages: expected shares above 0 and below 1, got {coverage}")

    def _new_model(self) -> ForecastModel:
        return ForecastModel(
            self._layout.targets,
            self._layout.covariates,
            self._layout.known,
            horizon=self.horizon,
            patch=self.patch,
            quantiles=levels_of(self.coverages),
            relative=self.relative,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
            **self._made(),
        )

    def _loss(self, model: ForecastModel, batch: Any, state: Any) -> tuple[Any, None]:
        backend = backend_of(model.linear.weight.data)
        past, future = (backend.asarray(part) for part in batch)
        if model.training and self.noise:
            past = with_noise(past, self._layout.targets, self.noise)
        return forecast_loss(model, model(past, future), future[:, :, : self._layout.targets]), None

    def _predict(self, X: Any, steps: int | None, after: Any, *, intervals: bool) -> tuple[np.ndarray, Bounds]:
        """Return one forecast: the mean (n, K) and the bounds by coverage."""
        self.check_is_fitted()
        steps = steps if steps is None else checks.count("steps", steps, 1)
        recent = self._recent if after is None else self._past_in(after)
        future = self._layout.future(X, steps, self.horizon)
        past, future = (self._standardised(rows)[:, None] for rows in (recent, future))
        mean, quantiles = self._forecast(past, future, intervals=intervals)
        return mean[:, 0], self._rollout().bounds(quantiles[:, 0])

    def _past_in(self, after: Any) -> np.ndarray:
        """Return the last window of data other than the training data."""
        table = self._layout.table(*(after if isinstance(after, tuple) and len(after) == 2 else (after, None)))
        if len(table) < self.window_:
            raise ShapeError(f"after: expected at least {self.window_} rows (one window), got {len(table)}")
        return table[-self.window_ :]

    def _forecast(
        self, past: np.ndarray, future: np.ndarray, *, intervals: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Map windows (W, B, F) and futures (steps, B, F) to the mean (steps, B, K) and the quantiles.

        The inputs are standardised; the outputs are in the units of the data.
        """
        K, steps = self._layout.targets, len(future)
        if steps > self.horizon and len(self._layout.known) < self._layout.covariates:
            raise ShapeError(
                f"steps: expected at most horizon = {self.horizon}, because some covariates are not known in advance, "
                f"got {steps}"
            )
        mean, quantiles = self._rollout().forecast(past, future, intervals=intervals)
        center, scale = self._center[:K], self._scale[:K]
        return mean * scale + center, quantiles * scale[:, None] + center[:, None]

    def _rollout(self) -> Rollout:
        return Rollout(self._run, self.horizon, self._layout.targets, tuple(self.coverages))

    def _run(self, past: np.ndarray, future: np.ndarray) -> np.ndarray:
        """Return the model's output as a NumPy array."""
        model, backend = self.model_, self._backend()
        with evaluation(model), no_grad():
            return backend.to_numpy(model(backend.asarray(past), backend.asarray(future)).data)

    # -- files -----------------------------------------------------------------------------------------------

    def _fitted(self) -> dict[str, Any]:
        numbers = {name: getattr(self, f"_{name}").tolist() for name in ("center", "scale", "recent")}
        return {**numbers, "window": self.window_, "layout": self._layout.to_json()}

    def _restore(self, fitted: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Module:
        self._layout = layout = Layout.from_json(fitted["layout"])
        self.n_features_in_ = layout.covariates or layout.targets
        self.window_ = checks.count("window", fitted["window"], 1)
        columns = layout.columns
        for name, shape in (("center", (columns,)), ("scale", (columns,)), ("recent", (self.window_, columns))):
            array = np.array(fitted[name], np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise ShapeError(f"{name}: expected finite numbers {shape}, got {array.shape}")
            setattr(self, f"_{name}", array)
        if not (self._scale > 0).all():
            raise ShapeError("scale: expected numbers above 0, got others")
        features = columns + bool(layout.known)
        sizes: dict[str, tuple[int, ...]] = {
            "lstm.weight_ih_l0": (4 * self.hidden_size, self.patch * features),
            "linear.bias": (self.horizon * layout.targets * (1 + 2 * len(self.coverages)),),
        }
        for name, size in sizes.items():
            if arrays[name].shape != size:
                raise ShapeError(f"{name}: expected {size}, got {arrays[name].shape}")
        return self._new_model()

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.regressor_tags = RegressorTags(poor_score=True)  # scikit-learn scores on the training rows
        tags.target_tags.multi_output = True
        return tags


def _windows_in(batch: Any) -> int:
    """Return the number of windows in a batch, over which its loss averages."""
    return batch[0].shape[1]
