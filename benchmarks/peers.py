"""The implementations to measure, gpulstm and those to compare with, behind one small interface.

Each is created from a Problem, for a device and a precision, and then computes the same sequence again and again:
``inference()`` returns y, h_n and c_n. ``training()`` returns these and the gradients of the weights, from the gradient
dy of y; it computes no gradient of the input. Results stay on the device until ``host`` copies them to NumPy.

A precision is a dtype, or "tf32": float32 storage with TensorFloat-32 products.
"""

import itertools
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
        options = {"bidirectional": shape.directions == 2, "device": device, "dtype": dtype, "path": self.asked}
        self.layer = gl.LSTM(shape.D, shape.H, shape.layers, **options)
        names, self.parameters = zip(*self.layer.named_parameters(), strict=True)
        given = zip(names, itertools.chain(*problem.weights), strict=True)
        self.layer.load_state_dict({name: array.astype(dtype) for name, array in given})
        self.x, self.dy = (self.backend.asarray(array.astype(dtype)) for array in (problem.x, problem.dy))

    def learn_path(self) -> None:
        self.inference()
        with gl.explain() as runs:
            self.inference()  # a GPU replays the second sequence of a shape
        # Those of a stack are most often one.
        self.path = " and ".join(dict.fromkeys(run.path for run in runs))
        self.note = " / ".join(dict.fromkeys(run.why_not_faster for run in runs if run.why_not_faster))

    def inference(self) -> tuple:
        with gl.no_grad():
            y, (h_n, c_n) = self.layer(self.x)
        return y.data, h_n.data, c_n.data

    def training(self) -> tuple:
        self.layer.zero_grad()
        y, (h_n, c_n) = self.layer(self.x)
        y.backward(self.dy)
        return y.data, h_n.data, c_n.data, *(parameter.grad for parameter in self.parameters)

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
    if name == "numpy":
        from benchmarks import per_gate

        return per_gate.PerGate
    return {"gpulstm": Gpulstm, "gpulstm fused": GpulstmFused, "gpulstm persistent": GpulstmPersistent}[name]
