"""The forecasting lab: the Forecaster, which forecasts time series with prediction intervals.

It reads one or several series, with or without covariates, from arrays in Python or from a CSV file on the command
line. ``gpulstm forecast train`` also compares the forecasts of a test part with simple baselines.

>>> forecaster = gl.Forecaster(horizon=12, random_state=0).fit(series)  # series (N,) or (N, K)
>>> forecaster.predict()  # the mean of the next 12 steps
>>> low, high = forecaster.predict_interval(coverage=0.8)
>>> forecasts = forecaster.backtest(longer_series, start=200)  # forecasts from many origins, as a Forecasts
"""

from gpulstm.labs.forecast.estimator import Forecaster, Forecasts

__all__ = ["Forecaster", "Forecasts"]
