"""The LSTM layer: everything ``torch.nn.LSTM`` has, and the modes of every recurrent layer."""

from typing import Unpack

from gpulstm.nn.options import Options
from gpulstm.nn.recurrent import Recurrent


class LSTM(Recurrent):
    """A multi-layer long short-term memory network (Hochreiter & Schmidhuber 1997), as ``torch.nn.LSTM``.

    ``output, (h_n, c_n) = lstm(x, (h_0, c_0), lengths=lengths)`` takes x (T, B, D): sequence length, batch size, input
    size. ``output`` (T, B, H) is the hidden state of the last layer at every step; ``h_n`` and ``c_n`` are the final
    hidden and cell states. The initial states default to zeros. Argument names, defaults and gate order (i, f, g, o)
    are PyTorch's. gl.Recurrent describes all shapes, parameters, options and errors.

    >>> lstm = gl.LSTM(input_size=3, hidden_size=4, num_layers=2)
    >>> output, (h_n, c_n) = lstm(np.zeros((5, 2, 3), np.float32), lengths=[5, 2])
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 2, 4), (2, 2, 4), (2, 2, 4))
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
        proj_size: int = 0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, **options
        )
