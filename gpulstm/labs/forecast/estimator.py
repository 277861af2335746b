"""Forecaster: time series with covariates and prediction intervals, with scikit-learn's habits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from gpulstm import checks, random
from gpulstm.backend import backend_of
from gpulstm.data import Windows
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.labs.estimator import Estimator, Run, digest_of, numbers_2d
from gpulstm.labs.forecast.model import ForecastModel, forecast_loss, with_noise
from gpulstm.nn import Module
from gpulstm.nn.contexts import evaluation
from gpulstm.tape import no_grad

PATHS = 100  # futures drawn for the intervals of forecasts that go on from forecasts
BLOCK = 1024  # windows forecast at once


@dataclass(frozen=True)
class Forecasts:
    """Forecasts from many origins: the rows that they begin at, and what was predicted and came."""

    origins: np.ndarray  # (n,): the row of the first step of each
    predicted: np.ndarray  # (n, steps, K)
    truth: np.ndarray  # (n, steps, K)
    intervals: dict[float, tuple[np.ndarray, np.ndarray]]  # by coverage: lower and upper, each (n, steps, K)


@dataclass(kw_only=True, eq=False, repr=False)
class Forecaster(Estimator):
    """Forecasts one or several series from a window of their past, with or without covariates.

    >>> t = np.arange(240)
    >>> series = np.sin(t / 6) + 0.01 * t
    >>> forecaster = Forecaster(horizon=12, window=48, epochs=30, random_state=0).fit(series[:228])
    >>> forecaster.predict().shape                        # the 12 steps that follow the training data
    (12,)
    >>> low, high = forecaster.predict_interval(coverage=0.8)
    >>> bool(np.abs(forecaster.predict() - series[228:]).mean() < 0.3)
    True

    ``fit(y)`` learns the series y, (N,) or (N, K) for K series; ``fit(X, y)`` learns y with the covariates X (N, D).
    ``predict(X)`` forecasts the ``len(X)`` rows that follow the training data, ``predict(steps=n)`` n of them where
    no covariate is known in advance. ``after=y`` or ``after=(X, y)`` forecasts what follows other data than the
    training data. In ``cross_val_score`` use ``TimeSeriesSplit``: each fold is forecast from the data before it.

    window
        Rows of the past that a forecast is made of, a multiple of ``patch``. None: 24 and twice the horizon, at most
        a third of the series.
    horizon
        Steps predicted at once. A longer forecast goes on from its own predictions (recursive forecasting), which
        ``horizon=1`` always does.
    known
        Which columns of X are known in advance, by number or by name: None means all of them. The others are read
        up to the last row of the past alone.
    coverages
        The prediction intervals that are learnt, as shares: (0.8, 0.95). () learns the mean alone.
    patch
        Rows that the LSTM reads as one step: 24 for hours makes it read days.
    relative
        Predict changes from the last value, which suits levels (prices, loads); False for what has no level of its
        own, such as returns.
    noise
        Standard deviation of the noise put on the targets of the window in training, in theirs.

    Data are standardised by the training part alone. The other parameters are those of ``Estimator``.
    """

    window: int | None = None
    horizon: int = 1
    known: Any = None
    coverages: tuple[float, ...] = (0.8, 0.95)
    patch: int = 1
    relative: bool = True
    noise: float = 0.0

    kind: ClassVar[str] = "forecaster"

    def fit(self, X: Any, y: Any = None, *, run: Run | None = None) -> Self:
        """Learn the series ``fit(y)``, or y with covariates ``fit(X, y)``; see the class. Returns self.

        ``run`` is for commands: files, checkpoints, progress. Raises ShapeError for data that do not fit and for
        fewer rows than a window and a horizon need, DTypeError for what is no number.
        """
        self.check_params()
        covariates, series = self._parts(X, y, reset=True)
        self._columns(covariates)
        table = np.concatenate([series, covariates], axis=1)  # (N, K + D)
        N = len(table)
        self.window_ = self._window_for(N)
        held_out = round(self.validation_fraction * N)
        if held_out and (N - held_out < self.window_ + self.horizon or held_out < self.horizon):
            held_out = 0  # too few rows to hold any out and train on the others
        if self.window_ + self.horizon > N - held_out:
            raise ShapeError(
                f"y: want at least {self.window_ + self.horizon} rows to train on, for a window of {self.window_} and "
                f"a horizon of {self.horizon}, got {N - held_out} (n_samples = {N}; 1 sample makes no series)"
            )
        cut = N - held_out
        self._center, scale = table[:cut].mean(axis=0), table[:cut].std(axis=0)
        self._scale = np.where(scale > 0, scale, 1.0)
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
        """The forecast of the mean: (n,) for a series (N,), (n, K) for (N, K).

        X (n, D) are the covariates of the rows to forecast; without any, ``steps`` (by default ``horizon``) says how
        many. ``after`` is the past to go on from: y or (X, y); by default that of the training data. Raises
        NotFitted, and ShapeError for data that do not fit.
        """
        mean, _ = self._predict(X, steps, after, intervals=False)
        return self._shaped(mean)

    def predict_interval(
        self, X: Any = None, *, coverage: float = 0.8, steps: int | None = None, after: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The lower and the upper bound between which a value lies with probability ``coverage``, as ``predict``'s."""
        self.check_is_fitted()
        if coverage not in self.coverages:
            raise ShapeError(f"coverage: want one of coverages = {self.coverages}, got {coverage!r}")
        _, intervals = self._predict(X, steps, after, intervals=True)
        low, high = intervals[coverage]
        return self._shaped(low), self._shaped(high)

    def score(self, X: Any, y: Any = None) -> float:
        """R², the coefficient of determination, of the forecast of the rows that follow the training data.

        ``score(y)`` or ``score(X, y)``, as in ``fit``; of several series the mean.
        """
        self.check_is_fitted()
        covariates, series = self._parts(X, y)
        rows = covariates if self._has_covariates else None
        predicted = self._predict(rows, len(series), None, intervals=False)[0]
        residual = ((series - predicted) ** 2).sum(axis=0)
        spread = ((series - series.mean(axis=0)) ** 2).sum(axis=0)
        return float(np.mean(np.where(residual == 0, 1.0, 1 - residual / np.where(spread > 0, spread, np.inf))))

    def update(self, X: Any, y: Any = None) -> Self:
        """Take newer data, ``update(y)`` or ``update(X, y)``, for ``predict`` to go on from; nothing is trained.

        Raises ShapeError for fewer rows than a window.
        """
        self.check_is_fitted()
        self._recent = self._past_in(X if y is None else (X, y))
        return self

    def backtest(self, X: Any, y: Any = None, *, start: int, steps: int | None = None, stride: int = 1) -> Forecasts:
        """Forecasts of ``steps`` rows from every origin ``start, start + stride, ...``, each from the rows before it.

        The data are ``fit``'s, longer by what is to be forecast; the model is not trained anew (a rolling origin,
        Tashman 2000). Raises ShapeError where there are fewer rows than a window before ``start`` or ``steps`` after.
        """
        self.check_is_fitted()
        covariates, series = self._parts(X, y)
        table = np.concatenate([series, covariates], axis=1)
        steps = self.horizon if steps is None else checks.count("steps", steps, 1)
        checks.count("start", start, self.window_)
        origins = np.arange(start, len(table) - steps + 1, checks.count("stride", stride, 1))
        if origins.size == 0:
            raise ShapeError(f"start: want at most {len(table) - steps}, {steps} rows before the end, got {start}")
        scaled = self._standardised(table)
        means, bounds = [], []
        block = BLOCK if steps <= self.horizon or not self.coverages else max(1, BLOCK // PATHS)
        for first in range(0, len(origins), block):
            some = origins[first : first + block]
            past = scaled[some + np.arange(-self.window_, 0)[:, None]]  # (W, B, F)
            future = scaled[some + np.arange(steps)[:, None]]  # (steps, B, F)
            mean, quantiles = self._forecast(past, future, steps)
            means.append(mean)
            bounds.append(quantiles)
        predicted = np.concatenate(means, axis=1).swapaxes(0, 1)  # (n, steps, K)
        quantiles = np.concatenate(bounds, axis=1).swapaxes(0, 1)
        truth = series[origins[:, None] + np.arange(steps)]
        return Forecasts(origins, predicted, truth, self._intervals(quantiles))

    def future_rows(self, known: np.ndarray) -> np.ndarray:
        """Covariates (n, D) for ``predict`` from those that are known in advance alone, (n, known)."""
        self.check_is_fitted()
        rows = np.zeros((len(known), self._covariates))
        rows[:, self._known] = known
        return rows

    # -- data ------------------------------------------------------------------------------------------------

    def _parts(self, X: Any, y: Any, *, reset: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(covariates (N, D), series (N, K)) of ``(y)`` or ``(X, y)``; ``reset`` learns their numbers and names."""
        names = getattr(X, "columns", None) if y is not None else None
        if y is None:
            series = numbers_2d("y", X, one_axis=True)
            covariates = np.zeros((len(series), 0))
        else:
            series = numbers_2d("y", y, one_axis=True)
            covariates = np.zeros((len(series), 0)) if X is None else numbers_2d("X", X)
        if len(covariates) != len(series):
            raise ShapeError(f"X: want {len(series)} rows, as y has, got {len(covariates)}")
        if reset:
            self.n_features_in_ = covariates.shape[1] if y is not None else series.shape[1]
            self._flat = np.asarray(X if y is None else y).ndim == 1
            self._targets, self._covariates = series.shape[1], covariates.shape[1]
            self._names = [str(name) for name in names] if names is not None else None
            self._has_covariates = y is not None and X is not None
        else:
            self._check_columns(covariates, series)
        return covariates, series

    def _check_columns(self, covariates: np.ndarray, series: np.ndarray) -> None:
        if covariates.shape[1] != self._covariates:
            raise ShapeError(
                f"X has {covariates.shape[1]} features, but {type(self).__name__} is expecting {self._covariates} "
                "features as input"
            )
        if series.shape[1] != self._targets:
            raise ShapeError(f"y: want {self._targets} series, as in fit, got {series.shape[1]}")

    def _columns(self, covariates: np.ndarray) -> None:
        """Find the numbers of the known columns. Raises ShapeError for columns that there are not."""
        D = covariates.shape[1]
        if self.known is None:
            self._known = list(range(D))
            return
        if isinstance(self.known, str) or not isinstance(self.known, Sequence | np.ndarray):
            raise DTypeError(f"known: want a list of columns of X, or None, got {self.known!r}")
        self._known = []
        for column in self.known:
            if isinstance(column, str):
                if column not in (self._names or []):
                    raise ShapeError(f"known: want names of X's columns {self._names}, got {column!r}")
                column = (self._names or []).index(column)
            self._known.append(checks.integer("known", column, 0, D, f"columns of X, 0 <= column < {D}"))

    def _window_for(self, N: int) -> int:
        window = self.window
        if window is None:
            window = max(1, min(24 + 2 * self.horizon, N // 3) // self.patch) * self.patch
        if checks.count("window", window, 1) % self.patch:
            raise ShapeError(f"window: want a multiple of patch = {self.patch}, got {window}")
        return window

    def _standardised(self, table: np.ndarray) -> np.ndarray:
        return ((table - self._center) / self._scale).astype(self.dtype)

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self._flat else values

    # -- computing -------------------------------------------------------------------------------------------

    def check_params(self) -> None:
        """Raise ShapeError or DTypeError for a parameter that cannot be used."""
        super().check_params()
        for name in ("horizon", "patch"):
            checks.count(name, getattr(self, name), 1)
        if self.window is not None:
            checks.count("window", self.window, 1)
        checks.number("noise", self.noise)
        checks.flag("relative", self.relative)
        if not isinstance(self.coverages, tuple | list):
            raise DTypeError(f"coverages: want a tuple of shares, e.g. (0.8, 0.95), got {self.coverages!r}")
        for coverage in self.coverages:
            if not 0 < checks.number("coverages", coverage) < 1:
                raise ShapeError(f"coverages: want shares above 0 and below 1, got {coverage}")

    def _new_model(self) -> ForecastModel:
        quantiles = [q for c in self.coverages for q in ((1 - c) / 2, (1 + c) / 2)]
        return ForecastModel(
            self._targets,
            self._covariates,
            self._known,
            horizon=self.horizon,
            patch=self.patch,
            quantiles=quantiles,
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
            past = with_noise(past, self._targets, self.noise)
        return forecast_loss(model, model(past, future), future[:, :, : self._targets]), None

    def _predict(self, X: Any, steps: int | None, after: Any, *, intervals: bool) -> tuple[np.ndarray, Any]:
        """One forecast: the mean (n, K) and the bounds by coverage."""
        self.check_is_fitted()
        steps = steps if steps is None else checks.count("steps", steps, 1)
        recent = self._recent if after is None else self._past_in(after)
        rows, K = self._future_rows(X, steps), self._targets
        past = self._standardised(recent)[:, None]
        scaled = self._standardised(np.concatenate([np.zeros((len(rows), K)), rows], axis=1))[:, None]
        mean, quantiles = self._forecast(past, scaled, len(rows), intervals=intervals)
        bounds = self._intervals(quantiles[:, 0]) if intervals else None
        return mean[:, 0], bounds

    def _past_in(self, after: Any) -> np.ndarray:
        pair = isinstance(after, tuple) and len(after) == 2
        covariates, series = self._parts(*after) if pair else self._parts(after, None)
        if len(series) < self.window_:
            raise ShapeError(f"after: want at least {self.window_} rows, a window, got {len(series)}")
        return np.concatenate([series, covariates], axis=1)[-self.window_ :]

    def _future_rows(self, X: Any, steps: int | None) -> np.ndarray:
        """The covariates (n, D) of the rows to forecast; zeros where they are not known in advance."""
        if self._known and X is None:
            raise ShapeError(
                f"X: want the covariates of the rows to forecast, (steps, {self._covariates}), as {len(self._known)} "
                "of them are known in advance, got None"
            )
        if X is None:
            return np.zeros((steps or self.horizon, self._covariates))
        rows = numbers_2d("X", X)
        if not self._has_covariates:
            raise ShapeError(f"X: want None, as fit had no covariates, got {rows.shape}; give steps={len(rows)}")
        self._check_columns(rows, np.zeros((1, self._targets)))
        if steps is not None and steps != len(rows):
            raise ShapeError(f"steps: want {len(rows)}, the rows of X, or None, got {steps}")
        return rows

    def _forecast(
        self, past: np.ndarray, future: np.ndarray, steps: int, *, intervals: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scaled windows (W, B, F) and futures (steps, B, F) -> mean (steps, B, K) and quantiles (steps, B, K, Q).

        In the units of the data. A forecast longer than the horizon goes on from its own mean; its quantiles are
        those of ``PATHS`` futures, each drawn from the quantiles of the steps before.
        """
        h, K = self.horizon, self._targets
        if steps > h and len(self._known) < self._covariates:
            raise ShapeError(
                f"steps: want at most horizon = {h}, as covariates that are not known in advance cannot be read "
                f"beyond it, got {steps}"
            )
        first = self._run(past, future[:h])  # (h, B, K, 1 + Q)
        if steps <= h:
            mean, quantiles = first[:steps, ..., 0], np.sort(first[:steps, ..., 1:], axis=-1)
        else:
            mean = self._continued(past, future, steps, None)
            quantiles = np.zeros((*mean.shape, 0))
            if intervals and self.coverages:
                generator = np.random.default_rng(0)  # the same futures in every call
                pasts, futures = (np.repeat(part, PATHS, axis=1) for part in (past, future))
                paths = self._continued(pasts, futures, steps, generator).reshape(steps, -1, PATHS, K)
                levels = np.sort(self._levels())
                quantiles = np.moveaxis(np.quantile(paths, levels, axis=2), 0, -1)
        center, scale = self._center[:K], self._scale[:K]
        return mean * scale + center, quantiles * scale[:, None] + center[:, None]

    def _continued(
        self, past: np.ndarray, future: np.ndarray, steps: int, generator: np.random.Generator | None
    ) -> np.ndarray:
        """Scaled forecasts (steps, B, K) made horizon by horizon, each from the one before: the mean, or a path."""
        K, parts = self._targets, []
        for start in range(0, steps, self.horizon):
            out = self._run(past, future[start : start + self.horizon])
            values = out[..., 0] if generator is None else self._drawn(out, generator)
            values = values[: steps - start]
            parts.append(values)
            rows = future[start : start + len(values)].copy()
            rows[:, :, :K] = values
            past = np.concatenate([past, rows])[-self.window_ :]
        return np.concatenate(parts)

    def _drawn(self, out: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One future (h, B, K) drawn for each row: the same place between the quantiles in all steps of a horizon.

        Between two quantiles the distribution is taken as even, beyond the outer ones as going on as steeply.
        """
        levels = np.sort(self._levels())
        values = np.sort(out[..., 1:], axis=-1)  # (h, B, K, Q)
        u = generator.random(out.shape[1:3])
        at = np.clip(np.searchsorted(levels, u) - 1, 0, len(levels) - 2)
        share = (u - levels[at]) / (levels[at + 1] - levels[at])
        index = np.broadcast_to(at, out.shape[:3])[..., None]
        low, high = (np.take_along_axis(values, index + k, axis=-1)[..., 0] for k in (0, 1))
        return (low + share * (high - low)).astype(out.dtype)

    def _levels(self) -> np.ndarray:
        return np.array([q for c in self.coverages for q in ((1 - c) / 2, (1 + c) / 2)])

    def _run(self, past: np.ndarray, future: np.ndarray) -> np.ndarray:
        """The model's answer on the host, for a future of the horizon or less."""
        model, backend = self.model_, self._backend()
        if len(future) < self.horizon:  # what stands there is not asked for
            future = np.concatenate([future, np.repeat(future[-1:], self.horizon - len(future), axis=0)])
        with evaluation(model), no_grad():
            return backend.to_numpy(model(backend.asarray(past), backend.asarray(future)).data)

    def _intervals(self, quantiles: np.ndarray) -> dict[float, tuple[np.ndarray, np.ndarray]]:
        """By coverage the bounds (..., K), of sorted quantiles (..., K, Q)."""
        if quantiles.shape[-1] == 0:
            return {}
        levels = np.sort(self._levels())
        places = {c: [int(np.argmin(abs(levels - q))) for q in ((1 - c) / 2, (1 + c) / 2)] for c in self.coverages}
        return {c: (quantiles[..., low], quantiles[..., high]) for c, (low, high) in places.items()}

    # -- files -----------------------------------------------------------------------------------------------

    def _fitted(self) -> dict[str, Any]:
        names = ("targets", "covariates", "known", "flat", "names", "has_covariates")
        numbers = {name: getattr(self, f"_{name}").tolist() for name in ("center", "scale", "recent")}
        return {
            **{name: getattr(self, f"_{name}") for name in names},
            **numbers,
            "window": self.window_,
            "n_features_in": self.n_features_in_,
        }

    def _restore(self, fitted: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Module:
        self._targets = checks.count("targets", fitted["targets"], 1)
        self._covariates = checks.count("covariates", fitted["covariates"])
        self.window_ = checks.count("window", fitted["window"], 1)
        columns = self._targets + self._covariates
        for name, shape in (("center", (columns,)), ("scale", (columns,)), ("recent", (self.window_, columns))):
            array = np.array(fitted[name], np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise ShapeError(f"{name}: want finite numbers {shape}, got {array.shape}")
            setattr(self, f"_{name}", array)
        self._known = [checks.integer("known", column, 0, self._covariates) for column in fitted["known"]]
        self._flat, self._names = bool(fitted["flat"]), fitted["names"]
        self._has_covariates, self.n_features_in_ = bool(fitted["has_covariates"]), int(fitted["n_features_in"])
        features = columns + bool(self._known)
        for name, shape in {
            "lstm.weight_ih_l0": (4 * self.hidden_size, self.patch * features),
            "linear.bias": (self.horizon * self._targets * (1 + 2 * len(self.coverages)),),
        }.items():
            if arrays[name].shape != shape:
                raise ShapeError(f"{name}: want {shape}, got {arrays[name].shape}")
        return self._new_model()

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.regressor_tags = RegressorTags(poor_score=True)  # it is scored on its training data, not on what follows
        tags.target_tags.multi_output = True
        return tags


def _windows_in(batch: Any) -> int:
    """The windows in a batch, over which its loss averages."""
    return batch[0].shape[1]
