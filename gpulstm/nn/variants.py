"""The recurrent layers other than the LSTM, and their single-step cells; gl.Recurrent describes their arguments."""

from typing import Any, ClassVar, Unpack

from gpulstm.cells import coupled, general, gru, layer_norm, peephole, rnn, slstm
from gpulstm.nn.cells import CellOptions, RecurrentCell
from gpulstm.nn.options import Options
from gpulstm.nn.recurrent import Recurrent


class RNN(Recurrent):
    """A simple recurrent network (Elman 1990), as ``torch.nn.RNN``: h = tanh(W x + U h_prev + b).

    ``output, h_n = rnn(x, h_0)``, with shapes and errors as for gl.Recurrent. ``nonlinearity`` is "tanh", "relu" or any
    other name in gpulstm.cells.activation; ``clip`` limits its argument to [-clip, clip].

    >>> gl.RNN(3, 4)(np.zeros((5, 2, 3), np.float32))[0].shape
    (5, 2, 4)
    """

    equation: ClassVar[dict[str, Any]] = {"nonlinearity": "tanh", "clip": None}

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: Any = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *, clip: float | None = None,
        **options: Unpack[Options],
    ) -> None:  # fmt: skip
        self.nonlinearity, self.clip = nonlinearity, clip
        cell = rnn.cell(nonlinearity, clip)
        super().__init__(
            cell, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **options
        )


class GRU(Recurrent):
    """A gated recurrent unit, as ``torch.nn.GRU``: ``output, h_n = gru(x, h_0)``; gates r, z, n.

    ``reset`` says where the reset gate acts: "after" the recurrent product (cuDNN, PyTorch, Keras) or "before" it (Cho
    et al. 2014). ``update`` is "torch" for h = (1 - z) n + z h_prev, or "cho" for h = (1 - z) h_prev + z n. Shapes and
    errors are as for gl.Recurrent.

    >>> gl.GRU(3, 4)(np.zeros((5, 2, 3), np.float32))[0].shape
    (5, 2, 4)
    """

    equation: ClassVar[dict[str, Any]] = {"reset": "after", "update": "torch"}

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, *, reset: str = "after", update: str = "torch",
        **options: Unpack[Options],
    ) -> None:  # fmt: skip
        self.reset, self.update = reset, update
        cell = gru.cell(reset, update)
        super().__init__(
            cell, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **options
        )


class PeepholeLSTM(Recurrent):
    """An LSTM whose gates also read the cell state (Gers & Schmidhuber 2000): i and f the old one, o the new one.

    ``peepholes`` is "diagonal", with weight_ch_l{k} (3H,), or "full", with weight_ch_l{k} (3H, H); the rows are those
    of i, f, o. Other shapes and errors are as for gl.Recurrent.

    >>> gl.PeepholeLSTM(3, 4).weight_ch_l0.shape
    (12,)
    """

    equation: ClassVar[dict[str, Any]] = {"peepholes": "diagonal"}

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *, peepholes: str = "diagonal",
        **options: Unpack[Options],
    ) -> None:  # fmt: skip
        self.peepholes = peepholes
        cell = peephole.cell(peepholes)
        super().__init__(
            cell, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, **options
        )


class CoupledLSTM(Recurrent):
    """An LSTM whose input gate is i = 1 - f (CIFG, Greff et al. 2017); gates f, g, o.

    ``output, (h_n, c_n) = layer(x, (h_0, c_0))``, with shapes and errors as for gl.Recurrent.

    >>> gl.CoupledLSTM(3, 4).weight_ih_l0.shape  # 3 gates
    (12, 3)
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, **options: Unpack[Options],
    ) -> None:  # fmt: skip
        shape = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__(coupled.CELL, *shape, **options)


class LayerNormLSTM(Recurrent):
    """An LSTM with layer normalisation of both products and of c (Ba, Kiros & Hinton 2016).

    It adds norm_ih and norm_hh (4H,), bias (4H,), norm_c and bias_c (H,), each with the suffix _l{k}. It has no bias_ih
    and bias_hh. Other shapes and errors are as for gl.Recurrent.

    >>> gl.LayerNormLSTM(3, 4)(np.zeros((5, 2, 3), np.float32))[0].shape
    (5, 2, 4)
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, **options: Unpack[Options],
    ) -> None:  # fmt: skip
        shape = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__(layer_norm.CELL, *shape, **options)


class SLSTM(Recurrent):
    """The sLSTM of xLSTM (Beck et al. 2024): exponential gates, a normaliser n and a stabiliser m; gates i, f, z, o.

    ``output, (h_n, c_n, n_n, m_n) = layer(x, (h_0, c_0, n_0, m_0))``, with shapes and errors as for gl.Recurrent.

    >>> gl.SLSTM(3, 4)(np.zeros((5, 2, 3), np.float32))[0].shape
    (5, 2, 4)
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, **options: Unpack[Options],
    ) -> None:  # fmt: skip
        shape = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__(slstm.CELL, *shape, **options)


class GeneralLSTM(Recurrent):
    """An LSTM with every attribute of ONNX's LSTM operator; gates i, f, g, o.

    ``activations`` are three: for the gates, for the candidate g, and for c. Each is a name or (name, alpha, beta) from
    gpulstm.cells.activation. ``clip`` limits pre-activations to [-clip, clip]. ``peepholes`` adds weight_ch_l{k} (3H,),
    with rows i, f, o. ``coupled`` sets f = 1 - i. Other shapes and errors are as for gl.Recurrent.

    >>> gl.GeneralLSTM(3, 4, activations=("hard_sigmoid", "tanh", "tanh")).weight_ih_l0.shape
    (16, 3)
    """

    equation: ClassVar[dict[str, Any]] = {
        "activations": ("sigmoid", "tanh", "tanh"), "clip": None, "peepholes": False, "coupled": False,
    }  # fmt: skip

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *,
        activations: tuple[Any, Any, Any] = ("sigmoid", "tanh", "tanh"), clip: float | None = None,
        peepholes: bool = False, coupled: bool = False, **options: Unpack[Options],
    ) -> None:  # fmt: skip
        self.activations, self.clip, self.peepholes, self.coupled = activations, clip, peepholes, coupled
        cell = general.cell(activations, clip, peepholes, coupled)
        super().__init__(
            cell, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, **options
        )


class RNNCell(RecurrentCell):
    """Computes one step, ``h = cell(x, h)``, as ``torch.nn.RNNCell``. Shapes and errors as for gl.RecurrentCell.

    >>> gl.RNNCell(3, 4)(np.zeros((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: Any = "tanh", *,
        clip: float | None = None, **options: Unpack[CellOptions],
    ) -> None:  # fmt: skip
        super().__init__(rnn.cell(nonlinearity, clip), input_size, hidden_size, bias, **options)


class GRUCell(RecurrentCell):
    """Computes one step, ``h = cell(x, h)``, as ``torch.nn.GRUCell``. Shapes and errors as for gl.RecurrentCell.

    >>> gl.GRUCell(3, 4)(np.zeros((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, reset: str = "after", update: str = "torch",
        **options: Unpack[CellOptions],
    ) -> None:  # fmt: skip
        super().__init__(gru.cell(reset, update), input_size, hidden_size, bias, **options)


class PeepholeLSTMCell(RecurrentCell):
    """Computes one step, ``h, c = cell(x, (h, c))``, of a PeepholeLSTM. Shapes and errors as for gl.RecurrentCell.

    >>> gl.PeepholeLSTMCell(3, 4)(np.zeros((2, 3), np.float32))[0].shape
    (2, 4)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, peepholes: str = "diagonal",
        **options: Unpack[CellOptions],
    ) -> None:  # fmt: skip
        super().__init__(peephole.cell(peepholes), input_size, hidden_size, bias, **options)


class CoupledLSTMCell(RecurrentCell):
    """Computes one step, ``h, c = cell(x, (h, c))``, of a CoupledLSTM. Shapes and errors as for gl.RecurrentCell.

    >>> gl.CoupledLSTMCell(3, 4)(np.zeros((2, 3), np.float32))[0].shape
    (2, 4)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__(coupled.CELL, input_size, hidden_size, bias, **options)


class LayerNormLSTMCell(RecurrentCell):
    """Computes one step, ``h, c = cell(x, (h, c))``, of a LayerNormLSTM. Shapes and errors as for gl.RecurrentCell.

    >>> gl.LayerNormLSTMCell(3, 4)(np.zeros((2, 3), np.float32))[0].shape
    (2, 4)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__(layer_norm.CELL, input_size, hidden_size, bias, **options)


class SLSTMCell(RecurrentCell):
    """Computes one step, ``h, c, n, m = cell(x, (h, c, n, m))``, of an SLSTM.

    Shapes and errors are as for gl.RecurrentCell.

    >>> gl.SLSTMCell(3, 4)(np.zeros((2, 3), np.float32))[0].shape
    (2, 4)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__(slstm.CELL, input_size, hidden_size, bias, **options)


class GeneralLSTMCell(RecurrentCell):
    """Computes one step, ``h, c = cell(x, (h, c))``, of a GeneralLSTM. Shapes and errors as for gl.RecurrentCell.

    >>> gl.GeneralLSTMCell(3, 4, clip=3.0)(np.zeros((2, 3), np.float32))[0].shape
    (2, 4)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *,
        activations: tuple[Any, Any, Any] = ("sigmoid", "tanh", "tanh"), clip: float | None = None,
        peepholes: bool = False, coupled: bool = False, **options: Unpack[CellOptions],
    ) -> None:  # fmt: skip
        super().__init__(general.cell(activations, clip, peepholes, coupled), input_size, hidden_size, bias, **options)
