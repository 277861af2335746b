"""The forecaster's network: a window of the past, cut into patches, through an LSTM to the steps that follow."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm import shares
from gpulstm.backend import Array, backend_of
from gpulstm.nn import LSTM, Dropout, Linear, Module, mse
from gpulstm.nn.functions import maximum
from gpulstm.random import default_generator
from gpulstm.tape import Tensor


class ForecastModel(Module):
    """Standardised rows of targets and covariates -> the mean and the quantiles of the targets' next steps.

    A row holds K targets, then the covariates; those in ``known`` (their numbers, from 0) are known in advance. The
    window (W, B, F) is read in patches of ``patch`` rows (Nie et al. 2023), then, where covariates are known in
    advance, the rows of the horizon with all else 0. With ``relative`` the network sees targets minus their last
    value, and predicts changes from it.
    """

    def __init__(
        self,
        targets: int,
        covariates: int,
        known: Sequence[int],
        *,
        horizon: int,
        patch: int,
        quantiles: Sequence[float],
        relative: bool,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        **made: Any,
    ) -> None:
        self.targets, self.known, self.horizon, self.patch = targets, list(known), horizon, patch
        self.quantiles, self.relative = list(quantiles), relative
        self.features = targets + covariates + bool(self.known)  # the last tells rows of the horizon from the past
        layers_dropout = dropout if num_layers > 1 else 0.0
        self.lstm = LSTM(patch * self.features, hidden_size, num_layers, dropout=layers_dropout, **made)
        self.dropout = Dropout(dropout, batch_axis=-2)
        self.linear = Linear(hidden_size, horizon * targets * (1 + len(self.quantiles)), **made)

    def forward(self, past: Array, future: Array | None = None) -> Tensor:
        """past (W, B, F) and, for known covariates, future (horizon, B, F) -> (horizon, B, K, 1 + Q), mean first."""
        backend, K = backend_of(past), self.targets
        last = past[-1, :, :K]  # (B, K)
        with backend as on:
            rows = past.copy()
            if self.relative:
                rows[:, :, :K] -= last
            if self.known:
                rows = on.xp.concatenate([rows, self._horizon_rows(on.xp, past, future)])
                flags = on.xp.zeros((*rows.shape[:2], 1), rows.dtype)
                flags[len(past) :] = 1
                rows = on.xp.concatenate([rows, flags], axis=2)
            patches = self._patches(on.xp, rows)
        _, (h, _) = self.lstm(patches)
        B = past.shape[1]
        out = self.linear(self.dropout(h[-1])).reshape(B, self.horizon, K, 1 + len(self.quantiles))
        out = out.transpose(1, 0, 2, 3)
        return out + last[None, :, :, None] if self.relative else out

    def _horizon_rows(self, xp: Any, past: Array, future: Array | None) -> Array:
        """The rows of the horizon, filled up to whole patches, with nothing but the known covariates."""
        assert future is not None
        rows = xp.zeros((-(-self.horizon // self.patch) * self.patch, *past.shape[1:]), past.dtype)
        for column in self.known:
            rows[: self.horizon, :, self.targets + column] = future[:, :, self.targets + column]
        return rows

    def _patches(self, xp: Any, rows: Array) -> Array:
        """(n * patch, B, F) as (n, B, patch * F)."""
        T, B, F = rows.shape
        parts = rows.reshape(T // self.patch, self.patch, B, F).transpose(0, 2, 1, 3)
        return xp.ascontiguousarray(parts).reshape(T // self.patch, B, self.patch * F)


def forecast_loss(model: ForecastModel, prediction: Tensor, truth: Array) -> Tensor:
    """The squared error of the mean plus the pinball loss of the quantiles (Koenker & Bassett 1978), each averaged.

    prediction (horizon, B, K, 1 + Q), truth (horizon, B, K).
    """
    loss = mse(prediction[..., 0], truth)
    if not model.quantiles:
        return loss
    with backend_of(truth) as backend:
        q = backend.asarray(np.array(model.quantiles).astype(truth.dtype))
    error = truth[..., None] - prediction[..., 1:]
    return loss + maximum(error * q, error * (q - 1)).mean()


def with_noise(past: Array, targets: int, noise: float) -> Array:
    """The window with Gaussian noise on its targets, in new memory; drawn on the host from the default generator."""
    backend = backend_of(past)
    share = shares.current() or shares.Share(0, past.shape[1], past.shape[1])
    drawn = default_generator().standard_normal((past.shape[0], share.whole, targets)) * noise
    drawn = drawn[:, share.first : share.first + share.count]
    with backend:
        noisy = past.copy()
        noisy[:, :, :targets] += backend.asarray(drawn.astype(past.dtype))
    return noisy
