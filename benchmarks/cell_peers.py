"""The implementations of the cells other than the LSTM: gpulstm's layers, and torch's layers or scripted loops."""

import os
from typing import Any

import numpy as np

import gpulstm as gl
from benchmarks.cell_problem import CellProblem
from benchmarks.peers import Gpulstm, Peer

ZONEOUT = 0.125
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gru": ("GRU", {}),
    "rnn": ("RNN", {}),
    "gru, reset before": ("GRU", {"reset": "before"}),
    "peephole": ("PeepholeLSTM", {}),
    "peephole, full": ("PeepholeLSTM", {"peepholes": "full"}),
    "coupled": ("CoupledLSTM", {}),
    "layer norm": ("LayerNormLSTM", {}),
    "slstm": ("SLSTM", {}),
    "lstm, zoneout": ("LSTM", {"regularize": gl.Zoneout(ZONEOUT, ZONEOUT)}),
    "lstm, lengths": ("LSTM", {}),
    "minlstm": ("MinLSTM", {}),
    "mingru": ("MinGRU", {}),
}


def layer(cell: str, module: Any, *sizes: int, **options: Any) -> Any:
    """The layer of that cell from ``module``: gpulstm or gpulstm.torch."""
    name, own = LAYERS[cell]
    return getattr(module, name)(*sizes, **own, **options)


class GpulstmCell(Gpulstm):
    """gpulstm's layer, as a user calls it. Agreement is checked in evaluation, where zoneout draws nothing."""

    def __init__(self, problem: CellProblem, device: str, precision: str) -> None:
        dtype = gl.as_dtype("float32" if precision == "tf32" else precision)
        self.backend = gl.device(device).backend
        sizes = problem.shape.D, problem.shape.H
        self.layer = layer(problem.cell, gl, *sizes, device=device, dtype=dtype).eval()
        state = {f"{name}_l0": array.astype(dtype) for name, array in problem.weights.items()}
        self.layer.load_state_dict(state)
        self.parameters = [dict(self.layer.named_parameters())[name] for name in state]
        self.x, self.dy = (self.backend.asarray(array.astype(dtype)) for array in (problem.x, problem.dy))
        self.modes = {} if problem.lengths is None else {"lengths": problem.lengths}

    def timed(self) -> None:
        """From now on as in training: with fresh noise."""
        self.layer.train()

    def _states(self, states: Any) -> tuple:
        return tuple(state.data[0] for state in (states if isinstance(states, tuple) else (states,)))

    def inference(self) -> tuple:
        with gl.no_grad():
            y, states = self.layer(self.x, **self.modes)
        return y.data, *self._states(states)

    def training(self) -> tuple:
        self.layer.zero_grad()
        y, states = self.layer(self.x, **self.modes)
        y.backward(self.dy)
        return y.data, *self._states(states), *(parameter.grad for parameter in self.parameters)


class TorchCell(Peer):
    """torch's fused layer where there is one, else a loop over time compiled by TorchScript."""

    def __init__(self, problem: CellProblem, device: str, precision: str) -> None:
        import torch

        from benchmarks import torch_loops

        if device == "cpu":
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
        elif not torch.cuda.is_available():
            raise ImportError(f"torch {torch.__version__} sees no GPU")
        self.torch, self.device = torch, torch.device(device)
        dtype = getattr(torch, "float32" if precision == "tf32" else precision)
        self.layer = self.made(torch_loops, problem, dtype)
        self.path = self.layer.path
        self.x, self.dy = (torch.from_numpy(array).to(self.device, dtype) for array in (problem.x, problem.dy))

    def made(self, torch_loops: Any, problem: CellProblem, dtype: Any) -> Any:
        """The module that is measured."""
        fused = problem.form.fused and dtype != self.torch.float64
        return (torch_loops.Fused if fused else torch_loops.Loop)(problem, self.device, dtype)

    def timed(self) -> None:
        """From now on as in training: with fresh noise."""
        self.layer.train()

    def inference(self) -> tuple:
        with self.torch.no_grad():
            return self.layer(self.x)

    def training(self) -> tuple:
        self.layer.zero_grad()
        outputs = self.layer(self.x)
        outputs[0].backward(self.dy)
        return *outputs, *(parameter.grad for parameter in self.layer.parameters())

    def host(self, results: tuple) -> list[np.ndarray]:
        wide = (self.torch.float64, self.torch.float32)
        return [r.detach().cpu().to(wide[r.dtype != self.torch.float64]).numpy() for r in results]

    def gpu_event(self) -> Any:
        if self.device.type == "cpu":
            return None
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, start: Any, stop: Any) -> float:
        stop.synchronize()
        return start.elapsed_time(stop)

    def device_memory(self) -> int:
        return self.torch.cuda.memory_reserved()

    def free_device_memory(self) -> None:
        self.torch.cuda.empty_cache()


class GpulstmTorchCell(TorchCell):
    """gpulstm.torch's layer: torch's tensors and tape."""

    def made(self, torch_loops: Any, problem: CellProblem, dtype: Any) -> Any:
        return torch_loops.Gpulstm(problem, self.device, dtype)
