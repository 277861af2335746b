"""The LSTM layer: everything ``torch.nn.LSTM`` has, and the modes of every recurrent layer."""

from typing import Unpack

from gpulstm.nn.options import Options
from gpulstm.nn.recurrent import Recurrent


class LSTM(Recurrent):
    """A multi-layer long short-term memory network over whole sequences, as ``torch.nn.LSTM``.

    ``output, (h_n, c_n) = lstm(x, (h_0, c_0), lengths=lengths)``: shapes, parameters and options are those of
    gl.Recurrent, names, defaults and gate order (i, f, g, o) those of PyTorch.
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
