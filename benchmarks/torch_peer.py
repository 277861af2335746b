"""torch.nn.LSTM as an implementation to compare with: on the CPU, on the GPU through cuDNN, and in a CUDA graph."""

import itertools
import os
from typing import Any

import numpy as np
import torch

from benchmarks.peers import Peer
from benchmarks.problem import Problem
from gpulstm.torch import LSTM as GpulstmLayer


class Torch(Peer):
    """torch.nn.LSTM, called eagerly."""

    path = "eager"
    kind: Any = torch.nn.LSTM

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        dtype = getattr(torch, "float32" if precision == "tf32" else precision)
        if device == "cpu":
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
        elif not torch.cuda.is_available():
            raise ImportError(f"torch {torch.__version__} sees no GPU")
        _use_tf32(precision == "tf32")
        self.device = torch.device(device)
        shape = problem.shape
        sizes = (shape.D, shape.H, shape.layers)
        self.layer = self.kind(*sizes, bidirectional=shape.directions == 2, device=self.device, dtype=dtype)
        with torch.no_grad():
            for parameter, array in zip(self.layer.parameters(), itertools.chain(*problem.weights), strict=True):
                parameter.copy_(torch.from_numpy(array))
        self.x, self.dy = (torch.from_numpy(array).to(self.device, dtype) for array in (problem.x, problem.dy))

    def inference(self) -> tuple:
        with torch.no_grad():
            y, (h_n, c_n) = self.layer(self.x)
        return y, h_n, c_n

    def training(self) -> tuple:
        self.layer.zero_grad()
        y, (h_n, c_n) = self.layer(self.x)
        y.backward(self.dy)
        return y, h_n, c_n, *(parameter.grad for parameter in self.layer.parameters())

    def host(self, results: tuple) -> list[np.ndarray]:
        return [
            result.detach().cpu().to(torch.float64 if result.dtype == torch.float64 else torch.float32).numpy()
            for result in results
        ]

    def gpu_event(self) -> Any:
        if self.device.type == "cpu":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, start: Any, stop: Any) -> float:
        stop.synchronize()
        return start.elapsed_time(stop)

    def device_memory(self) -> int:
        return torch.cuda.memory_reserved()

    def free_device_memory(self) -> None:
        torch.cuda.empty_cache()


def _use_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


class GpulstmTorch(Torch):
    """gpulstm.torch.LSTM in torch.nn.LSTM's place: the same model, torch's tensors and tape."""

    path = "gpulstm in torch"
    kind = GpulstmLayer


class TorchGraph(Torch):
    """torch.nn.LSTM captured once in a CUDA graph and replayed: what cuDNN does when no host holds it up."""

    path = "CUDA graph"

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        super().__init__(problem, device, precision)
        self._graphs: dict[str, tuple[Any, tuple]] = {}

    def _replay(self, mode: str) -> tuple:
        if mode not in self._graphs:
            self._graphs[mode] = self._capture(getattr(super(), mode))
        graph, results = self._graphs[mode]
        graph.replay()
        return results

    def _capture(self, call: Any) -> tuple[Any, tuple]:
        """Warm up on a side stream, then capture, as PyTorch's notes on CUDA graphs have it.

        No gradients are set at that time, so that they are made in the graph's own memory and every replay
        writes them anew.
        """
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        self.layer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call()
        return graph, results

    def inference(self) -> tuple:
        return self._replay("inference")

    def training(self) -> tuple:
        return self._replay("training")
