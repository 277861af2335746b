"""The cells beside the LSTM as gpulstm's layers and as torch users get them: the fused layer, or a scripted loop."""

import os
from typing import Any

import numpy as np

import gpulstm as gl
from benchmarks.cell_problem import CellProblem
from benchmarks.peers import Gpulstm, Peer

LAYERS: dict[str, Any] = {
    "gru": gl.GRU,
    "rnn": gl.RNN,
    "gru, reset before": lambda D, H, **o: gl.GRU(D, H, reset="before", **o),
    "peephole": gl.PeepholeLSTM,
    "peephole, full": lambda D, H, **o: gl.PeepholeLSTM(D, H, peepholes="full", **o),
    "coupled": gl.CoupledLSTM,
    "layer norm": gl.LayerNormLSTM,
    "slstm": gl.SLSTM,
    "lstm, zoneout": lambda D, H, **o: gl.LSTM(D, H, regularize=gl.Zoneout(ZONEOUT, ZONEOUT), **o),
    "lstm, lengths": gl.LSTM,
    "minlstm": gl.MinLSTM,
    "mingru": gl.MinGRU,
}
ZONEOUT = 0.125


class GpulstmCell(Gpulstm):
    """gpulstm's layer, as a user calls it. Agreement is checked in evaluation, where zoneout draws nothing."""

    def __init__(self, problem: CellProblem, device: str, precision: str) -> None:
        dtype = gl.as_dtype("float32" if precision == "tf32" else precision)
        self.backend = gl.device(device).backend
        self.layer = LAYERS[problem.cell](problem.shape.D, problem.shape.H, device=device, dtype=dtype).eval()
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
        kind = torch_loops.Fused if problem.form.fused and precision != "float64" else torch_loops.Loop
        self.path = kind.path
        self.layer = kind(problem, self.device, dtype)
        self.x, self.dy = (torch.from_numpy(array).to(self.device, dtype) for array in (problem.x, problem.dy))

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
