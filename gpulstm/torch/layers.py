"""gpulstm's layers and cells as ``torch.nn.Module``s; their documentation is that of the layer each is named after."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gpulstm import nn
from gpulstm.errors import ShapeError
from gpulstm.torch.module import Module, on_host, optional_tensors, tensor_of


def _as_given(states: tuple) -> Any:
    """The states as a layer of gpulstm takes them: None for none, alone where the cell has one."""
    if all(state is None for state in states):
        return None
    return states[0] if len(states) == 1 else states


def _flat(states: Any) -> tuple:
    return states if isinstance(states, tuple) else (states,)


class Recurrent(Module):
    """``gl.Recurrent`` for torch: any cell over whole sequences, also one of the user's own.

    ``output, states = layer(x, states_0, lengths=, mask=, reset=)``; a ``PackedSequence`` in place of x gives one in
    place of output, with states in the order that its sequences had before they were sorted.
    """

    kind: ClassVar[Callable[..., Any]] = nn.Recurrent

    @staticmethod
    def compute(layer: Any, x: Any, *states: Any, **modes: Any) -> tuple:
        output, after = layer.forward(x, _as_given(states), **modes)
        return (output, *_flat(after))

    @property
    def _draws(self) -> bool:
        layer = self._layer
        return bool(layer.dropout) or layer.regularization.draws

    @torch.compiler.disable
    def forward(self, x: Any, hx: Any = None, lengths: Any = None, mask: Any = None, reset: Any = None) -> Any:
        """See ``gl.Recurrent``."""
        if isinstance(x, PackedSequence):
            if not (lengths is None and mask is None and reset is None):
                raise ShapeError("lengths: want no lengths, mask or reset with a PackedSequence, which has its own")
            return self._packed(x, hx)
        modes = {"lengths": on_host(lengths), "mask": on_host(mask), "reset": on_host(reset)}
        states = optional_tensors(self._layer.cell.states, hx)
        output, *after = self._call(tensor_of("x", x), *states, **modes)
        return output, after[0] if len(after) == 1 else tuple(after)

    def _packed(self, x: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """Over the sequences as they are sorted; the steps that a short one lacks are no steps."""
        if not self.return_sequences:
            raise ShapeError("return_sequences: want True with a PackedSequence, got False")
        first = self.batch_first
        padded, lengths = pad_packed_sequence(PackedSequence(x.data, x.batch_sizes), batch_first=first)
        states = [self._ordered(state, x.sorted_indices) for state in optional_tensors(self._layer.cell.states, hx)]
        output, *after = self._call(padded, *states, lengths=lengths.numpy(), mask=None, reset=None)
        packed = pack_padded_sequence(output, lengths, batch_first=first)
        last = tuple(self._ordered(state, x.unsorted_indices) for state in after)
        indices = x.sorted_indices, x.unsorted_indices
        return PackedSequence(packed.data, packed.batch_sizes, *indices), last[0] if len(last) == 1 else last

    @staticmethod
    def _ordered(state: torch.Tensor | None, order: torch.Tensor | None) -> torch.Tensor | None:
        return state if state is None or order is None else state.index_select(1, order)

    def flatten_parameters(self) -> None:
        """Nothing: it is there for programs that call it on ``torch.nn.LSTM``."""

    @property
    def all_weights(self) -> list[list[torch.nn.Parameter]]:
        """The parameters of each layer and direction, as those of ``torch.nn.LSTM``."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        ends = [f"_l{layer}{suffix}" for layer in range(self.num_layers) for suffix in suffixes]
        return [[getattr(self, n) for n in self._names if n[n.rindex("_l") :] == end] for end in ends]


class LSTM(Recurrent):
    """``gl.LSTM`` in place of ``torch.nn.LSTM``: the same arguments, parameters and results."""

    kind = nn.LSTM


class GRU(Recurrent):
    """``gl.GRU`` in place of ``torch.nn.GRU``."""

    kind = nn.GRU


class RNN(Recurrent):
    """``gl.RNN`` in place of ``torch.nn.RNN``."""

    kind = nn.RNN


class PeepholeLSTM(Recurrent):
    """``gl.PeepholeLSTM`` for torch."""

    kind = nn.PeepholeLSTM


class CoupledLSTM(Recurrent):
    """``gl.CoupledLSTM`` for torch."""

    kind = nn.CoupledLSTM


class LayerNormLSTM(Recurrent):
    """``gl.LayerNormLSTM`` for torch."""

    kind = nn.LayerNormLSTM


class SLSTM(Recurrent):
    """``gl.SLSTM`` for torch."""

    kind = nn.SLSTM


class GeneralLSTM(Recurrent):
    """``gl.GeneralLSTM`` for torch."""

    kind = nn.GeneralLSTM


class MinLSTM(Recurrent):
    """``gl.MinLSTM`` for torch."""

    kind = nn.MinLSTM


class MinGRU(Recurrent):
    """``gl.MinGRU`` for torch."""

    kind = nn.MinGRU


class RecurrentCell(Module):
    """``gl.RecurrentCell`` for torch: one step of any cell, ``h, c = cell(x, (h, c))`` or ``h = cell(x, h)``."""

    kind: ClassVar[Callable[..., Any]] = nn.RecurrentCell

    @staticmethod
    def compute(layer: Any, x: Any, *states: Any) -> tuple:
        return _flat(layer.forward(x, _as_given(states)))

    @torch.compiler.disable
    def forward(self, x: Any, hx: Any = None) -> Any:
        """See ``gl.RecurrentCell``."""
        after = self._call(tensor_of("x", x), *optional_tensors(self._layer.cell.states, hx))
        return after[0] if len(after) == 1 else after


class LSTMCell(RecurrentCell):
    """``gl.LSTMCell`` in place of ``torch.nn.LSTMCell``."""

    kind = nn.LSTMCell


class GRUCell(RecurrentCell):
    """``gl.GRUCell`` in place of ``torch.nn.GRUCell``."""

    kind = nn.GRUCell


class RNNCell(RecurrentCell):
    """``gl.RNNCell`` in place of ``torch.nn.RNNCell``."""

    kind = nn.RNNCell


class PeepholeLSTMCell(RecurrentCell):
    """``gl.PeepholeLSTMCell`` for torch."""

    kind = nn.PeepholeLSTMCell


class CoupledLSTMCell(RecurrentCell):
    """``gl.CoupledLSTMCell`` for torch."""

    kind = nn.CoupledLSTMCell


class LayerNormLSTMCell(RecurrentCell):
    """``gl.LayerNormLSTMCell`` for torch."""

    kind = nn.LayerNormLSTMCell


class SLSTMCell(RecurrentCell):
    """``gl.SLSTMCell`` for torch."""

    kind = nn.SLSTMCell


class GeneralLSTMCell(RecurrentCell):
    """``gl.GeneralLSTMCell`` for torch."""

    kind = nn.GeneralLSTMCell


class MinLSTMCell(RecurrentCell):
    """``gl.MinLSTMCell`` for torch."""

    kind = nn.MinLSTMCell


class MinGRUCell(RecurrentCell):
    """``gl.MinGRUCell`` for torch."""

    kind = nn.MinGRUCell


class Attention(Module):
    """``gl.Attention`` for torch: ``context, weights = attention(query, keys, values, lengths=, mask=)``."""

    kind = nn.Attention

    @staticmethod
    def compute(layer: Any, query: Any, keys: Any, values: Any, **modes: Any) -> tuple:
        return layer.forward(query, keys, values, **modes)

    @torch.compiler.disable
    def forward(self, query: Any, keys: Any, values: Any = None, lengths: Any = None, mask: Any = None) -> Any:
        """See ``gl.Attention``."""
        values = None if values is None else tensor_of("values", values)
        modes = {"lengths": on_host(lengths), "mask": on_host(mask)}
        return self._call(tensor_of("query", query), tensor_of("keys", keys), values, **modes)
