"""The minimal LSTM and GRU, whose gates depend only on the input: layers over sequences and single steps."""

from typing import Unpack

from gpulstm.cells import mingru, minlstm
from gpulstm.nn.cells import CellOptions, RecurrentCell
from gpulstm.nn.options import Options
from gpulstm.nn.recurrent import Recurrent


class MinLSTM(Recurrent):
    """A multi-layer minimal LSTM over whole sequences (Feng et al. 2024, "Were RNNs all we needed?", section 3.2).

        f, i, n = sigmoid(W_f x + b_f), sigmoid(W_i x + b_i), W_n x + b_n
        h = f / (f + i) * h_prev + i / (f + i) * n

    ``output, h_n = layer(x, h_0, lengths=lengths)``, with shapes, options and errors of gl.Recurrent. The candidate n
    is linear, as in the paper's main text. The gates do not depend on h, so all steps are computed in parallel. One
    layer computes only a weighted mean of past candidates; stack several layers to compute more.

    Parameters are weight_ih_l{k} (3H, D or K*H) and bias_ih_l{k} (3H,), with gates in the order f, i, n. The backward
    direction has the suffix _reverse.

    >>> gl.MinLSTM(3, 4)(np.zeros((5, 2, 3), np.float32))[0].shape
    (5, 2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Unpack[Options],
    ) -> None:
        shape = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(minlstm.CELL, *shape, **options)


class MinGRU(Recurrent):
    """A multi-layer minimal GRU over whole sequences (Feng et al. 2024, "Were RNNs all we needed?", section 3.1).

        z, n = sigmoid(W_z x + b_z), W_n x + b_n
        h = (1 - z) * h_prev + z * n

    As in the paper, z weighs the candidate n; in ``GRU`` it weighs h_prev by default. n is linear. Arguments, shapes
    and errors are those of ``MinLSTM``, with weight_ih_l{k} (2H, D or K*H) and bias_ih_l{k} (2H,), gates in the order
    z, n.

    >>> gl.MinGRU(3, 4)(np.zeros((5, 2, 3), np.float32))[0].shape
    (5, 2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Unpack[Options],
    ) -> None:
        shape = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(mingru.CELL, *shape, **options)


class MinLSTMCell(RecurrentCell):
    """Computes one step of a ``MinLSTM``: ``h = cell(x, h)``.

    Parameters are weight_ih (3H, D) and bias_ih (3H,), gates in the order f, i, n. Other shapes, options and errors are
    as for gl.RecurrentCell.

    >>> gl.MinLSTMCell(3, 4)(np.zeros((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__(minlstm.CELL, input_size, hidden_size, bias, **options)


class MinGRUCell(RecurrentCell):
    """Computes one step of a ``MinGRU``: ``h = cell(x, h)``.

    Parameters are weight_ih (2H, D) and bias_ih (2H,), gates in the order z, n. Other shapes, options and errors are
    as for gl.RecurrentCell.

    >>> gl.MinGRUCell(3, 4)(np.zeros((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__(mingru.CELL, input_size, hidden_size, bias, **options)
