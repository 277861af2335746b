"""The implementations that are measured: gpulstm, and those it is compared with, behind one small interface.

Each is made from a Problem, on a device and at a precision, and then computes the same thing again and again:
``inference()`` gives y, h_n and c_n, ``training()`` these and the gradients of the four parameters for the
gradient dy of y, none of the input. Results stay on the device until ``host`` brings them over.

A precision is a dtype, or "tf32": float32 storage with products of TensorFloat-32.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import gpulstm as gl
from benchmarks.problem import MODES, Problem


class Peer:
    """What all implementations have in common."""

    path = ""  # which of its ways the implementation took
    note = ""  # why not a faster one

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        raise NotImplementedError

    def inference(self) -> tuple:
        raise NotImplementedError

    def training(self) -> tuple:
        raise NotImplementedError

    def learn_path(self) -> None:
        """Set ``path`` and ``note`` where they are not known before; may compute."""
        return

    def timed(self) -> None:
        """Agreement has been checked; what follows is timed."""
        return

    def host(self, results: tuple) -> list[np.ndarray]:
        """The results as NumPy arrays, half precision widened to float32."""
        return [np.asarray(result) for result in results]

    def gpu_event(self) -> Any:
        """A recorded GPU event; None on the processor."""
        return None

    def elapsed(self, start: Any, stop: Any) -> float:
        """Milliseconds between two GPU events, waiting for the second."""
        raise NotImplementedError

    def device_memory(self) -> int:
        """Bytes that the library's pool holds on the GPU: it grows to the most that was needed at once."""
        raise NotImplementedError

    def free_device_memory(self) -> None:
        """Give back what the pool holds unused."""
        raise NotImplementedError


class Gpulstm(Peer):
    """gl.LSTM, as a user calls it: the layer and the tape are part of what is measured."""

    asked = "auto"

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        dtype = gl.as_dtype("float32" if precision == "tf32" else precision)
        self.backend = gl.device(device).backend
        shape = problem.shape
        self.layer = gl.LSTM(shape.D, shape.H, device=device, dtype=dtype, path=self.asked)
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        given = (problem.w_ih, problem.w_hh, problem.b_ih, problem.b_hh)
        self.layer.load_state_dict({name: array.astype(dtype) for name, array in zip(names, given, strict=True)})
        self.parameters = [dict(self.layer.named_parameters())[name] for name in names]
        self.x, self.dy = (self.backend.asarray(array.astype(dtype)) for array in (problem.x, problem.dy))

    def learn_path(self) -> None:
        self.inference()
        with gl.explain() as runs:
            self.inference()  # a GPU replays the second sequence of a shape
        self.path, self.note = runs[0].path, runs[0].why_not_faster

    def inference(self) -> tuple:
        with gl.no_grad():
            y, (h_n, c_n) = self.layer(self.x)
        return y.data, h_n.data[0], c_n.data[0]

    def training(self) -> tuple:
        self.layer.zero_grad()
        y, (h_n, c_n) = self.layer(self.x)
        y.backward(self.dy)
        return y.data, h_n.data[0], c_n.data[0], *(parameter.grad for parameter in self.parameters)

    def host(self, results: tuple) -> list[np.ndarray]:
        arrays = [self.backend.to_numpy(result) for result in results]
        return [array.astype(np.float32) if array.dtype.itemsize == 2 else array for array in arrays]

    def gpu_event(self) -> Any:
        if not self.backend.is_cuda:
            return None
        event = self.backend.xp.cuda.Event()
        event.record()
        return event

    def elapsed(self, start: Any, stop: Any) -> float:
        stop.synchronize()
        return self.backend.xp.cuda.get_elapsed_time(start, stop)

    def device_memory(self) -> int:
        return self.backend.xp.get_default_memory_pool().total_bytes()

    def free_device_memory(self) -> None:
        self.backend.xp.get_default_memory_pool().free_all_blocks()


class GpulstmFused(Gpulstm):
    """With the product and the gates of a step in one kernel."""

    asked = "fused"


class GpulstmPersistent(Gpulstm):
    """With the time loop inside the kernel."""

    asked = "persistent"


class PerGate(Peer):
    """The LSTM as small programs write it: a product for every gate, fresh arrays, gradients step by step.

    In float64 it is the reference that every implementation is held against; it shares no code with gpulstm.
    It runs on NumPy or, for the reference on a GPU, on CuPy.
    """

    path = "per gate"

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        self.backend = gl.device(device).backend
        self.xp = self.backend.xp
        weights = np.concatenate([problem.w_ih, problem.w_hh], axis=1)  # (4H, D + H), acting on [x, h]
        bias = problem.b_ih + problem.b_hh
        on_device = [
            self.backend.asarray(array.astype(precision))
            for array in (problem.x, problem.dy, *np.split(weights, 4), *np.split(bias, 4))
        ]
        self.x, self.dy, self.W, self.b = *on_device[:2], on_device[2:6], on_device[6:]
        self.D, self.H = problem.shape.D, problem.shape.H

    def _sigmoid(self, z: Any) -> Any:
        return 1 / (1 + self.xp.exp(-z))

    def _forward(self) -> tuple[Any, list[tuple]]:
        xp, (T, B, _) = self.xp, self.x.shape
        h, c = xp.zeros((B, self.H), self.x.dtype), xp.zeros((B, self.H), self.x.dtype)
        steps, hs = [], []
        for t in range(T):
            xh = xp.concatenate([self.x[t], h], axis=1)
            i = self._sigmoid(xh @ self.W[0].T + self.b[0])
            f = self._sigmoid(xh @ self.W[1].T + self.b[1])
            g = xp.tanh(xh @ self.W[2].T + self.b[2])
            o = self._sigmoid(xh @ self.W[3].T + self.b[3])
            c_prev, c = c, f * c + i * g
            h = o * xp.tanh(c)
            steps.append((xh, i, f, g, o, c_prev, c))
            hs.append(h)
        return (xp.stack(hs), h, c), steps

    def inference(self) -> tuple:
        return self._forward()[0]

    def training(self) -> tuple:
        outputs, steps = self._forward()
        xp = self.xp
        dW, db = [xp.zeros_like(w) for w in self.W], [xp.zeros_like(b) for b in self.b]
        dh, dc = xp.zeros_like(outputs[1]), xp.zeros_like(outputs[2])
        for t in reversed(range(len(steps))):
            xh, i, f, g, o, c_prev, c = steps[t]
            dh = dh + self.dy[t]
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
                dxh = dxh + dz[gate] @ self.W[gate]
            dh, dc = dxh[:, self.D :], dc * f
        dW, db = xp.concatenate(dW), xp.concatenate(db)
        return *outputs, dW[:, : self.D], dW[:, self.D :], db, db

    def host(self, results: tuple) -> list[np.ndarray]:
        return [self.backend.to_numpy(result) for result in results]


@dataclass(frozen=True)
class Serves:
    """What an implementation can do, known without importing its library."""

    devices: tuple[str, ...]
    modes: tuple[str, ...] = tuple(MODES)
    precisions: tuple[str, ...] = ("float32", "float64", "tf32", "float16", "bfloat16")


SERVES = {
    "gpulstm": Serves(("cpu", "cuda")),
    "gpulstm fused": Serves(("cuda",)),
    "gpulstm persistent": Serves(("cuda",)),
    "torch": Serves(("cpu", "cuda")),
    "gpulstm.torch": Serves(("cpu", "cuda")),
    "torch graph": Serves(("cuda",)),
    "onnxruntime": Serves(("cpu",), ("inference",), ("float32",)),
    "numpy": Serves(("cpu",), precisions=("float32", "float64")),
}


def find(name: str, cell: str = "lstm") -> type[Peer]:
    """The implementation of that name; ImportError where its library is missing."""
    if cell != "lstm":
        from benchmarks import cell_peers

        kinds = {"gpulstm": cell_peers.GpulstmCell, "gpulstm.torch": cell_peers.GpulstmTorchCell}
        return kinds.get(name, cell_peers.TorchCell)
    if name in ("torch", "torch graph", "gpulstm.torch"):
        from benchmarks import torch_peer

        kinds = {"torch graph": torch_peer.TorchGraph, "gpulstm.torch": torch_peer.GpulstmTorch}
        return kinds.get(name, torch_peer.Torch)
    if name == "onnxruntime":
        from benchmarks import onnx_peer

        return onnx_peer.OnnxRuntime
    own = {"gpulstm": Gpulstm, "gpulstm fused": GpulstmFused, "gpulstm persistent": GpulstmPersistent}
    return {**own, "numpy": PerGate}[name]
