"""gpulstm's layers over sequences as ``torch.nn.Module``s; the arguments are those of the layer each is named after."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gpulstm import nn
from gpulstm.errors import ShapeError
from gpulstm.torch.module import Module, as_given, flat, on_host, optional_tensors, tensor_of


class Recurrent(Module):
    """``gl.Recurrent`` as a PyTorch module: any cell over whole sequences, also your own.

    ``output, states = layer(x, states_0, lengths=, mask=, reset=)``, with arguments, shapes and errors of
    ``gl.Recurrent``. If x is a ``PackedSequence``, so is the output, and the states have the order of the sequences
    before sorting.

    >>> gl.torch.Recurrent("coupled", 3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind: ClassVar[Callable[..., Any]] = nn.Recurrent

    @staticmethod
    def compute(layer: Any, x: Any, *states: Any, **modes: Any) -> tuple:
        output, after = layer.forward(x, as_given(states), **modes)
        return (output, *flat(after))

    @property
    def _draws(self) -> bool:
        layer = self._layer
        return bool(layer.dropout) or layer.regularization.draws

    @torch.compiler.disable
    def forward(self, x: Any, hx: Any = None, lengths: Any = None, mask: Any = None, reset: Any = None) -> Any:
        """See ``gl.Recurrent``."""
        if isinstance(x, PackedSequence):
            if not (lengths is None and mask is None and reset is None):
                raise ShapeError("lengths: expected no lengths, mask or reset with a PackedSequence, which has lengths")
            return self._packed(x, hx)
        modes = {"lengths": on_host(lengths), "mask": on_host(mask), "reset": on_host(reset)}
        states = optional_tensors(self._layer.cell.states, hx)
        output, *after = self._call(tensor_of("x", x), *states, **modes)
        return output, after[0] if len(after) == 1 else tuple(after)

    def _packed(self, x: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """Run over the sequences padded and in sorted order; their lengths mark the padding."""
        if not self.return_sequences:
            raise ShapeError("return_sequences: expected True with a PackedSequence, got False")
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
        """Does nothing; programs that call it on ``torch.nn.LSTM`` keep working."""

    @property
    def all_weights(self) -> list[list[torch.nn.Parameter]]:
        """The parameters of each layer and direction, as in ``torch.nn.LSTM``."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        ends = [f"_l{layer}{suffix}" for layer in range(self.num_layers) for suffix in suffixes]
        return [[getattr(self, n) for n in self._names if n[n.rindex("_l") :] == end] for end in ends]


class LSTM(Recurrent):
    """``gl.LSTM`` as a PyTorch module, in place of ``torch.nn.LSTM``.

    Arguments, shapes and errors are those of ``gl.LSTM``.

    >>> gl.torch.LSTM(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.LSTM


class GRU(Recurrent):
    """``gl.GRU`` as a PyTorch module, in place of ``torch.nn.GRU``.

    Arguments, shapes and errors are those of ``gl.GRU``.

    >>> gl.torch.GRU(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.GRU


class RNN(Recurrent):
    """``gl.RNN`` as a PyTorch module, in place of ``torch.nn.RNN``.

    Arguments, shapes and errors are those of ``gl.RNN``.

    >>> gl.torch.RNN(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.RNN


class PeepholeLSTM(Recurrent):
    """``gl.PeepholeLSTM`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.PeepholeLSTM``.

    >>> gl.torch.PeepholeLSTM(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.PeepholeLSTM


class CoupledLSTM(Recurrent):
    """``gl.CoupledLSTM`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.CoupledLSTM``.

    >>> gl.torch.CoupledLSTM(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.CoupledLSTM


class LayerNormLSTM(Recurrent):
    """``gl.LayerNormLSTM`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.LayerNormLSTM``.

    >>> gl.torch.LayerNormLSTM(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.LayerNormLSTM


class SLSTM(Recurrent):
    """``gl.SLSTM`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.SLSTM``.

    >>> gl.torch.SLSTM(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.SLSTM


class GeneralLSTM(Recurrent):
    """``gl.GeneralLSTM`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.GeneralLSTM``.

    >>> gl.torch.GeneralLSTM(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.GeneralLSTM


class MinLSTM(Recurrent):
    """``gl.MinLSTM`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.MinLSTM``.

    >>> gl.torch.MinLSTM(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.MinLSTM


class MinGRU(Recurrent):
    """``gl.MinGRU`` as a PyTorch module.

    Arguments, shapes and errors are those of ``gl.MinGRU``.

    >>> gl.torch.MinGRU(3, 4)(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """

    kind = nn.MinGRU


class Attention(Module):
    """``gl.Attention`` as a PyTorch module: ``context, weights = attention(query, keys, values, lengths=, mask=)``.

    Arguments, shapes and errors are those of ``gl.Attention``.

    >>> gl.torch.Attention(4, 3)(torch.zeros(2, 4), torch.zeros(5, 2, 3))[1].shape
    torch.Size([2, 5])
    """

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
