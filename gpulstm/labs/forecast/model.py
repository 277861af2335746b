"""The forecaster's network: an LSTM reads the past window in patches, a linear layer predicts the next steps."""

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

    A row holds K targets, then the covariates; ``known`` lists the numbers, from 0, of the covariates that are known in
    advance. The LSTM reads the window (W, B, F) in patches of ``patch`` rows (Nie et al. 2023). If covariates are known
    in advance, it then reads the rows of the horizon too, in which everything else is 0. With ``relative`` the network
    sees targets minus their last value, and predicts changes from that value.
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
        self.features = targets + covariates + bool(self.known)  # the last feature is 1 in rows of the horizon
        layers_dropout = dropout if num_layers > 1 else 0.0
        self.lstm = LSTM(patch * self.features, hidden_size, num_layers, dropout=layers_dropout, **made)
        self.dropout = Dropout(dropout, batch_axis=-2)
        self.linear = Linear(hidden_size, horizon * targets * (1 + len(self.quantiles)), **made)

    def forward(self, past: Array, future: Array | None = None) -> Tensor:
        """Map past (W, B, F) to the forecast (horizon, B, K, 1 + Q), the mean first, then the quantiles.

        future (horizon, B, F) is needed only with known covariates.
        """
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
        """Return the rows of the horizon, padded to whole patches; everything but the known covariates is 0."""
        assert future is not None
        rows = xp.zeros((-(-self.horizon // self.patch) * self.patch, *past.shape[1:]), past.dtype)
        for column in self.known:
            rows[: self.horizon, :, self.targets + column] = future[:, :, self.targets + column]
        return rows

    def _patches(self, xp: Any, rows: Array) -> Array:
        """Reshape (n * patch, B, F) to (n, B, patch * F)."""
        T, B, F = rows.shape
        parts = rows.reshape(T // self.patch, self.patch, B, F).transpose(0, 2, 1, 3)
        return xp.ascontiguousarray(parts).reshape(T // self.patch, B, self.patch * F)


def forecast_loss(model: ForecastModel, prediction: Tensor, truth: Array) -> Tensor:
    """Return the mean squared error of the mean plus the mean pinball loss of the quantiles (Koenker & Bassett 1978).

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
    """Return a copy of the window with Gaussian noise on its targets.

    The noise is drawn on the processor, from the default generator, so that it is the same on every device.
    """
    backend = backend_of(past)
    share = shares.current() or shares.Share(0, past.shape[1], past.shape[1])
    drawn = default_generator().standard_normal((past.shape[0], share.whole, targets)) * noise
    drawn = drawn[:, share.first : share.first + share.count]
    with backend:
        noisy = past.copy()
        noisy[:, :, :targets] += backend.asarray(drawn.astype(past.dtype))
    return noisy
