"""gpulstm's single-step cells as ``torch.nn.Module``s; the arguments are those of the cell each is named after."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch

from gpulstm import nn
from gpulstm.torch.module import Module, as_given, flat, optional_tensors, tensor_of


class RecurrentCell(Module):
    """``gl.RecurrentCell`` as a PyTorch module: one step of any cell, ``h, c = cell(x, (h, c))`` or ``h = cell(x, h)``.

    Arguments, shapes and errors are those of ``gl.RecurrentCell``.

    >>> gl.torch.RecurrentCell("coupled", 3, 4)(torch.zeros(2, 3))[0].shape
    torch.Size([2, 4])
    """

    kind: ClassVar[Callable[..., Any]] = nn.RecurrentCell

    @staticmethod
    def compute(layer: Any, x: Any, *states: Any) -> tuple:
        return flat(layer.forward(x, as_given(states)))

    @torch.compiler.disable
    def forward(self, x: Any, hx: Any = None) -> Any:
        """See ``gl.RecurrentCell``."""
        after = self._call(tensor_of("x", x), *optional_tensors(self._layer.cell.states, hx))
        return after[0] if len(after) == 1 else after


class LSTMCell(RecurrentCell):
    """``gl.LSTMCell`` as a PyTorch module, in place of ``torch.nn.LSTMCell``.

    Arguments, shapes and errors are those of ``gl.LSTMCell``.

    >>> gl.torch.LSTMCell(3, 4)(torch.zeros(2, 3))[0].shape
    torch.Size([2, 4])
    """

    kind = nn.LSTMCell


class GRUCell(RecurrentCell):
    """``gl.GRUCell`` as a PyTorch module, in place of ``torch.nn.GRUCell``.

    Arguments, shapes and errors are those of ``gl.GRUCell``.

    >>> gl.torch.GRUCell(3, 4)(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """

    kind = nn.GRUCell


class RNNCell(RecurrentCell):
    """``gl.RNNCell`` as a PyTorch module, in place of ``torch.nn.RNNCell``.

    Arguments, shapes and errors are those of ``gl.RNNCell``.

    >>> gl.torch.RNNCell(3, 4)(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """

    kind = nn.RNNCell


class PeepholeLSTMCell(RecurrentCell):
    """``gl.PeepholeLSTMCell`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.PeepholeLSTMCell``.

    >>> gl.torch.PeepholeLSTMCell(3, 4)(torch.zeros(2, 3))[0].shape
    torch.Size([2, 4])
    """

    kind = nn.PeepholeLSTMCell


class CoupledLSTMCell(RecurrentCell):
    """``gl.CoupledLSTMCell`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.CoupledLSTMCell``.

    >>> gl.torch.CoupledLSTMCell(3, 4)(torch.zeros(2, 3))[0].shape
    torch.Size([2, 4])
    """

    kind = nn.CoupledLSTMCell


class LayerNormLSTMCell(RecurrentCell):
    """``gl.LayerNormLSTMCell`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.LayerNormLSTMCell``.

    >>> gl.torch.LayerNormLSTMCell(3, 4)(torch.zeros(2, 3))[0].shape
    torch.Size([2, 4])
    """

    kind = nn.LayerNormLSTMCell


class SLSTMCell(RecurrentCell):
    """``gl.SLSTMCell`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.SLSTMCell``.

    >>> gl.torch.SLSTMCell(3, 4)(torch.zeros(2, 3))[0].shape
    torch.Size([2, 4])
    """

    kind = nn.SLSTMCell


class GeneralLSTMCell(RecurrentCell):
    """``gl.GeneralLSTMCell`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.GeneralLSTMCell``.

    >>> gl.torch.GeneralLSTMCell(3, 4)(torch.zeros(2, 3))[0].shape
    torch.Size([2, 4])
    """

    kind = nn.GeneralLSTMCell


class MinLSTMCell(RecurrentCell):
    """``gl.MinLSTMCell`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.MinLSTMCell``.

    >>> gl.torch.MinLSTMCell(3, 4)(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """

    kind = nn.MinLSTMCell


class MinGRUCell(RecurrentCell):
    """``gl.MinGRUCell`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.MinGRUCell``.

    >>> gl.torch.MinGRUCell(3, 4)(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """

    kind = nn.MinGRUCell
