"""The forecasting lab: series from a CSV file, the Forecaster, baselines and a backtest."""

from gpulstm.labs.forecast.estimator import Forecaster, Forecasts

__all__ = ["Forecaster", "Forecasts"]
