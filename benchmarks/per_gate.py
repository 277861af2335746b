"""An LSTM as small programs write it: one of the implementations and, in float64, the reference for all others.

It shares no code with gpulstm. It runs on NumPy or, as the reference on a GPU, on CuPy.
"""

from typing import Any

import numpy as np

import gpulstm as gl
from benchmarks.peers import Peer
from benchmarks.problem import Problem

_TURN = (1, -1)  # the order of the steps in each direction


class PerGate(Peer):
    """A product for every gate, fresh arrays, gradients step by step."""

    path = "per gate"

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        self.backend = gl.device(device).backend
        self.xp, self.shape = self.backend.xp, problem.shape

        def moved(*arrays: np.ndarray) -> list[Any]:
            return [self.backend.asarray(array.astype(precision)) for array in arrays]

        self.x, self.dy = moved(problem.x, problem.dy)
        # For each layer and direction: of each gate (H, D + H), acting on [x, h], and (H,).
        self.W = [moved(*np.split(np.concatenate(w[:2], axis=1), 4)) for w in problem.weights]
        self.b = [moved(*np.split(w.b_ih + w.b_hh, 4)) for w in problem.weights]

    def _sigmoid(self, z: Any) -> Any:
        return 1 / (1 + self.xp.exp(-z))

    def _loop(self, x: Any, W: list, b: list) -> tuple[tuple, list[tuple]]:
        """One layer in one direction: (y, h, c), and what each step keeps."""
        xp, (T, B, _) = self.xp, x.shape
        h, c = xp.zeros((B, self.shape.H), x.dtype), xp.zeros((B, self.shape.H), x.dtype)
        steps, hs = [], []
        for t in range(T):
            xh = xp.concatenate([x[t], h], axis=1)
            i = self._sigmoid(xh @ W[0].T + b[0])
            f = self._sigmoid(xh @ W[1].T + b[1])
            g = xp.tanh(xh @ W[2].T + b[2])
            o = self._sigmoid(xh @ W[3].T + b[3])
            c_prev, c = c, f * c + i * g
            h = o * xp.tanh(c)
            steps.append((xh, i, f, g, o, c_prev, c))
            hs.append(h)
        return (xp.stack(hs), h, c), steps

    def _loop_back(self, dy: Any, W: list, steps: list[tuple]) -> tuple[list, tuple]:
        """The gradients of x at each step, the last one first, and of the weights."""
        xp, D, dxs = self.xp, W[0].shape[1] - self.shape.H, []
        dW, db = [xp.zeros_like(w) for w in W], [xp.zeros_like(w[:, 0]) for w in W]
        dh, dc = xp.zeros_like(dy[0]), xp.zeros_like(dy[0])
        for t in reversed(range(len(steps))):
            xh, i, f, g, o, c_prev, c = steps[t]
            dh = dh + dy[t]
            tanh_c = xp.tanh(c)
            dc = dc + dh * o * (1 - tanh_c**2)
            dz = (
                dc * g * i * (1 - i),
                dc * c_prev * f * (1 - f),
                dc * i * (1 - g**2),
                dh * tanh_c * o * (1 - o),
            )
            dxh = xp.zeros_like(xh)
            for gate in range(4):
                dW[gate] += dz[gate].T @ xh
                db[gate] += dz[gate].sum(axis=0)
                dxh = dxh + dz[gate] @ W[gate]
            dxs.append(dxh[:, :D])
            dh, dc = dxh[:, D:], dc * f
        dW, db = xp.concatenate(dW), xp.concatenate(db)
        return dxs, (dW[:, :D], dW[:, D:], db, db)

    def _forward(self) -> tuple[tuple, list[list[tuple]]]:
        xp, K, x, last, kept = self.xp, self.shape.directions, self.x, [], []
        for layer in range(self.shape.layers):
            ys = []
            for k in range(K):
                (y, *states), steps = self._loop(x[:: _TURN[k]], self.W[K * layer + k], self.b[K * layer + k])
                ys.append(y[:: _TURN[k]])
                last.append(states)
                kept.append(steps)
            x = xp.concatenate(ys, axis=2) if K > 1 else ys[0]
        return (x, *(xp.stack(states) for states in zip(*last, strict=True))), kept

    def inference(self) -> tuple:
        return self._forward()[0]

    def training(self) -> tuple:
        outputs, kept = self._forward()
        xp, K, dy, gradients = self.xp, self.shape.directions, self.dy, []
        for layer in reversed(range(self.shape.layers)):
            dxs, of_layer = [], []
            for k, part in enumerate(xp.split(dy, K, axis=2)):
                dx, of_weights = self._loop_back(part[:: _TURN[k]], self.W[K * layer + k], kept[K * layer + k])
                dxs.append(dx[:: -_TURN[k]])
                of_layer += of_weights
            gradients = of_layer + gradients
            if layer:
                dy = sum(xp.stack(dx) for dx in dxs)
        return *outputs, *gradients

    def host(self, results: tuple) -> list[np.ndarray]:
        return [self.backend.to_numpy(result) for result in results]
