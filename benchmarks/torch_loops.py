"""Cells that torch has no layer for, as a torch user writes them: one product for all inputs, then a scripted loop.

TorchScript compiles the loop over time. In float64, these loops are the reference for all implementations of a cell.

Each loop takes zx (T, B, G*H), the input part of the pre-activations with the bias, and the other parameters by
position. It returns (y, *last states).
"""

import warnings

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gpulstm.torch
from benchmarks.cell_peers import layer
from benchmarks.cell_problem import CellProblem

ZONEOUT = 0.125


def rnn(zx: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor]:
    h, hs = torch.zeros_like(zx[0]), []
    for t in range(zx.shape[0]):
        h = torch.tanh(zx[t] + torch.addmm(b_hh, h, w_hh.t()))
        hs.append(h)
    return torch.stack(hs), h


def gru(zx: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor]:
    h, hs = torch.zeros(zx.shape[1], w_hh.shape[1], dtype=zx.dtype, device=zx.device), []
    for t in range(zx.shape[0]):
        xr, xz, xn = zx[t].chunk(3, 1)
        hr, hz, hn = torch.addmm(b_hh, h, w_hh.t()).chunk(3, 1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        h = n + z * (h - n)
        hs.append(h)
    return torch.stack(hs), h


def gru_reset_before(zx: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor]:
    H = w_hh.shape[1]
    h, hs = torch.zeros(zx.shape[1], H, dtype=zx.dtype, device=zx.device), []
    w_gates, w_n = w_hh[: 2 * H].t(), w_hh[2 * H :].t()
    b_gates, b_n = b_hh[: 2 * H], b_hh[2 * H :]
    for t in range(zx.shape[0]):
        xr, xz, xn = zx[t].chunk(3, 1)
        hr, hz = torch.addmm(b_gates, h, w_gates).chunk(2, 1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + torch.addmm(b_n, r * h, w_n))
        h = n + z * (h - n)
        hs.append(h)
    return torch.stack(hs), h


def peephole(zx: Tensor, w_hh: Tensor, b_hh: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.zeros(zx.shape[1], w_hh.shape[1], dtype=zx.dtype, device=zx.device)
    c, hs = torch.zeros_like(h), []
    p_i, p_f, p_o = p.chunk(3)
    for t in range(zx.shape[0]):
        z_i, z_f, z_g, z_o = (zx[t] + torch.addmm(b_hh, h, w_hh.t())).chunk(4, 1)
        i, f = torch.sigmoid(z_i + p_i * c), torch.sigmoid(z_f + p_f * c)
        c = f * c + i * torch.tanh(z_g)
        h = torch.sigmoid(z_o + p_o * c) * torch.tanh(c)
        hs.append(h)
    return torch.stack(hs), h, c


def peephole_full(zx: Tensor, w_hh: Tensor, b_hh: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    H = w_hh.shape[1]
    h = torch.zeros(zx.shape[1], H, dtype=zx.dtype, device=zx.device)
    c, hs = torch.zeros_like(h), []
    p_if, p_o = p[: 2 * H].t(), p[2 * H :].t()
    for t in range(zx.shape[0]):
        z_i, z_f, z_g, z_o = (zx[t] + torch.addmm(b_hh, h, w_hh.t())).chunk(4, 1)
        c_i, c_f = (c @ p_if).chunk(2, 1)
        c = torch.sigmoid(z_f + c_f) * c + torch.sigmoid(z_i + c_i) * torch.tanh(z_g)
        h = torch.sigmoid(z_o + c @ p_o) * torch.tanh(c)
        hs.append(h)
    return torch.stack(hs), h, c


def coupled(zx: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.zeros(zx.shape[1], w_hh.shape[1], dtype=zx.dtype, device=zx.device)
    c, hs = torch.zeros_like(h), []
    for t in range(zx.shape[0]):
        z_f, z_g, z_o = (zx[t] + torch.addmm(b_hh, h, w_hh.t())).chunk(3, 1)
        g = torch.tanh(z_g)
        c = g + torch.sigmoid(z_f) * (c - g)
        h = torch.sigmoid(z_o) * torch.tanh(c)
        hs.append(h)
    return torch.stack(hs), h, c


def layer_norm(
    zx: Tensor, w_hh: Tensor, norm_ih: Tensor, norm_hh: Tensor, bias: Tensor, norm_c: Tensor, bias_c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    H = w_hh.shape[1]
    h = torch.zeros(zx.shape[1], H, dtype=zx.dtype, device=zx.device)
    c, hs = torch.zeros_like(h), []
    zx = torch.layer_norm(zx, [4 * H], norm_ih, bias)  # all steps at once: it does not wait for h
    for t in range(zx.shape[0]):
        z_i, z_f, z_g, z_o = (zx[t] + torch.layer_norm(h @ w_hh.t(), [4 * H], norm_hh)).chunk(4, 1)
        c = torch.sigmoid(z_f) * c + torch.sigmoid(z_i) * torch.tanh(z_g)
        h = torch.sigmoid(z_o) * torch.tanh(torch.layer_norm(c, [H], norm_c, bias_c))
        hs.append(h)
    return torch.stack(hs), h, c


def slstm(zx: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    h = torch.zeros(zx.shape[1], w_hh.shape[1], dtype=zx.dtype, device=zx.device)
    c, n, m, hs = torch.zeros_like(h), torch.zeros_like(h), torch.full_like(h, -float("inf")), []  # nothing weighed
    for t in range(zx.shape[0]):
        z_i, z_f, z_z, z_o = (zx[t] + torch.addmm(b_hh, h, w_hh.t())).chunk(4, 1)
        kept = torch.nn.functional.logsigmoid(z_f) + m
        m = torch.maximum(kept, z_i)
        i, f = torch.exp(z_i - m), torch.exp(kept - m)
        c = f * c + i * torch.tanh(z_z)
        n = f * n + i
        h = torch.sigmoid(z_o) * c / n
        hs.append(h)
    return torch.stack(hs), h, c, n, m


def zoneout(zx: Tensor, w_hh: Tensor, b_hh: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.zeros(zx.shape[1], w_hh.shape[1], dtype=zx.dtype, device=zx.device)
    c, hs = torch.zeros_like(h), []
    for t in range(zx.shape[0]):
        z_i, z_f, z_g, z_o = (zx[t] + torch.addmm(b_hh, h, w_hh.t())).chunk(4, 1)
        c_new = torch.sigmoid(z_f) * c + torch.sigmoid(z_i) * torch.tanh(z_g)
        h_new = torch.sigmoid(z_o) * torch.tanh(c_new)
        h = h_new + keep[0, t] * (h - h_new)
        c = c_new + keep[1, t] * (c - c_new)
        hs.append(h)
    return torch.stack(hs), h, c


def lengths(zx: Tensor, w_hh: Tensor, b_hh: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.zeros(zx.shape[1], w_hh.shape[1], dtype=zx.dtype, device=zx.device)
    c, hs = torch.zeros_like(h), []
    for t in range(zx.shape[0]):
        z_i, z_f, z_g, z_o = (zx[t] + torch.addmm(b_hh, h, w_hh.t())).chunk(4, 1)
        c_new = torch.sigmoid(z_f) * c + torch.sigmoid(z_i) * torch.tanh(z_g)
        h_new = torch.sigmoid(z_o) * torch.tanh(c_new)
        hs.append(alive[t] * h_new)
        h, c = torch.where(alive[t] > 0, h_new, h), torch.where(alive[t] > 0, c_new, c)
    return torch.stack(hs), h, c


def minlstm(zx: Tensor) -> tuple[Tensor, Tensor]:
    z_f, z_i, value = zx.chunk(3, 2)
    f, i = torch.sigmoid(z_f), torch.sigmoid(z_i)
    share = f / (f + i)
    new = (1 - share) * value
    h, hs = torch.zeros_like(new[0]), []
    for t in range(zx.shape[0]):
        h = share[t] * h + new[t]
        hs.append(h)
    return torch.stack(hs), h


def mingru(zx: Tensor) -> tuple[Tensor, Tensor]:
    z, value = zx.chunk(2, 2)
    z = torch.sigmoid(z)
    new, share = z * value, 1 - z
    h, hs = torch.zeros_like(new[0]), []
    for t in range(zx.shape[0]):
        h = share[t] * h + new[t]
        hs.append(h)
    return torch.stack(hs), h


LOOPS = {
    "rnn": rnn, "gru": gru, "gru, reset before": gru_reset_before, "peephole": peephole,
    "peephole, full": peephole_full, "coupled": coupled, "layer norm": layer_norm, "slstm": slstm,
    "lstm, zoneout": zoneout, "lstm, lengths": lengths, "minlstm": minlstm, "mingru": mingru,
}  # fmt: skip


class Loop(torch.nn.Module):
    """One layer as a scripted loop."""

    path = "scripted loop"

    def __init__(self, problem: CellProblem, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.zoned, self.size = problem.cell == "lstm, zoneout", (2, problem.shape.T, problem.shape.B, problem.shape.H)
        self.lengths = problem.lengths
        self.names = list(problem.weights)  # the dictionary of parameters would sort them
        self.weights = torch.nn.ParameterDict(
            {name: torch.from_numpy(array).to(device, dtype) for name, array in problem.weights.items()}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.loop = torch.jit.script(LOOPS[problem.cell])
        self.eval()

    def parameters(self, recurse: bool = True):  # in the order of the problem's names
        return (self.weights[name] for name in self.names)

    def forward(self, x: Tensor) -> tuple:
        w_ih, *others = (self.weights[name] for name in self.names if name != "bias_ih")
        zx = torch.nn.functional.linear(x, w_ih, self.weights["bias_ih"] if "bias_ih" in self.names else None)
        if self.zoned:
            keep = torch.full(self.size, ZONEOUT, dtype=x.dtype, device=x.device)
            others.append(torch.bernoulli(keep) if self.training else keep)
        if self.lengths is not None:
            steps = torch.arange(len(x), device=x.device)[:, None, None]
            others.append((steps < torch.from_numpy(self.lengths).to(x.device)[None, :, None]).to(x.dtype))
        return self.loop(zx, *others)


class Fused(torch.nn.Module):
    """torch.nn.GRU or torch.nn.RNN; torch.nn.LSTM on a packed sequence."""

    path = "fused layer"

    def __init__(self, problem: CellProblem, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        kind = {"gru": torch.nn.GRU, "rnn": torch.nn.RNN, "lstm, lengths": torch.nn.LSTM}[problem.cell]
        self.layer = kind(problem.shape.D, problem.shape.H, device=device, dtype=dtype)
        with torch.no_grad():
            for parameter, array in zip(self.layer.parameters(), problem.weights.values(), strict=True):
                parameter.copy_(torch.from_numpy(array))
        self.lengths = None if problem.lengths is None else torch.from_numpy(problem.lengths)

    def forward(self, x: Tensor) -> tuple:
        if self.lengths is None:
            y, h_n = self.layer(x)
            return y, h_n[0]
        packed, (h_n, c_n) = self.layer(pack_padded_sequence(x, self.lengths))
        return pad_packed_sequence(packed)[0], h_n[0], c_n[0]


class Gpulstm(torch.nn.Module):
    """The layer of gpulstm.torch."""

    path = "gpulstm in torch"

    def __init__(self, problem: CellProblem, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        sizes = problem.shape.D, problem.shape.H
        self.layer = layer(problem.cell, gpulstm.torch, *sizes, device=device, dtype=dtype)
        self.layer.load_state_dict({f"{n}_l0": torch.from_numpy(w) for n, w in problem.weights.items()})
        self.modes = {} if problem.lengths is None else {"lengths": problem.lengths}
        self.eval()  # agreement is checked without noise

    def forward(self, x: Tensor) -> tuple:
        y, states = self.layer(x, **self.modes)
        return y, *(state[0] for state in (states if isinstance(states, tuple) else (states,)))
