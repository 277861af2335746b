"""The recurrent layers beside the LSTM, and their single steps: each is gl.Recurrent with its cell.

Options that change the equation stand here; ``num_layers`` and what follows are gl.Recurrent's, and the keywords
of ``options`` too.
"""

from typing import Any, ClassVar, Unpack

from gpulstm.cells import coupled, general, gru, layer_norm, peephole, rnn, slstm
from gpulstm.nn.cells import CellOptions, RecurrentCell
from gpulstm.nn.options import Options
from gpulstm.nn.recurrent import Recurrent


class RNN(Recurrent):
    """The simple recurrent network, as ``torch.nn.RNN``: h = tanh(W x + U h_prev + b) (Elman 1990).

    ``output, h_n = rnn(x, h_0)``. ``nonlinearity`` is tanh, relu or another that cells.activation names.
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
    """The gated recurrent unit, as ``torch.nn.GRU``: ``output, h_n = gru(x, h_0)``; gates r, z, n.

    ``reset`` is "after" the product (cuDNN, PyTorch, Keras) or "before" it (Cho et al. 2014); ``update`` is
    "torch" for h = (1 - z) n + z h_prev, or "cho" for h = (1 - z) h_prev + z n.
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
    """An LSTM whose gates see the cell state (Gers & Schmidhuber 2000): i and f the old one, o the new one.

    ``peepholes`` is "diagonal": weight_ch_l{k} (3H,), rows i, f, o, or "full": a matrix (3H, H).
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
    """An LSTM that lets in what it forgets: i = 1 - f (CIFG, Greff et al. 2017); gates f, g, o."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, **options: Unpack[Options],
    ) -> None:  # fmt: skip
        shape = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__(coupled.CELL, *shape, **options)


class LayerNormLSTM(Recurrent):
    """An LSTM with layer normalisation of both products and of c (Ba, Kiros & Hinton 2016).

    Parameters besides the weights: norm_ih and norm_hh (4H,), bias (4H,), norm_c and bias_c (H,), each with
    its suffix _l{k}. The products have no bias of their own.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, **options: Unpack[Options],
    ) -> None:  # fmt: skip
        shape = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__(layer_norm.CELL, *shape, **options)


class SLSTM(Recurrent):
    """The sLSTM of the xLSTM (Beck et al. 2024): exponential gates, a normaliser n and a stabiliser m.

    ``output, (h_n, c_n, n_n, m_n) = layer(x, (h_0, c_0, n_0, m_0))``; gates i, f, z, o.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, **options: Unpack[Options],
    ) -> None:  # fmt: skip
        shape = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__(slstm.CELL, *shape, **options)


class GeneralLSTM(Recurrent):
    """The LSTM with every attribute of ONNX's operator, gates i, f, g, o.

    ``activations`` are those of the gates i, f, o, of the candidate g, and of c, each a name or (name, alpha,
    beta) of cells.activation; ``clip`` limits every pre-activation to [-clip, clip]; ``peepholes`` adds
    weight_ch_l{k} (3H,), rows i, f, o; ``coupled`` takes f = 1 - i.
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
    """One step of an RNN, as ``torch.nn.RNNCell``: ``h = cell(x, h)``."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: Any = "tanh", *,
        clip: float | None = None, **options: Unpack[CellOptions],
    ) -> None:  # fmt: skip
        super().__init__(rnn.cell(nonlinearity, clip), input_size, hidden_size, bias, **options)


class GRUCell(RecurrentCell):
    """One step of a GRU, as ``torch.nn.GRUCell``: ``h = cell(x, h)``; ``reset`` and ``update`` as for GRU."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, reset: str = "after", update: str = "torch",
        **options: Unpack[CellOptions],
    ) -> None:  # fmt: skip
        super().__init__(gru.cell(reset, update), input_size, hidden_size, bias, **options)


class PeepholeLSTMCell(RecurrentCell):
    """One step of a PeepholeLSTM: ``h, c = cell(x, (h, c))``."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, peepholes: str = "diagonal",
        **options: Unpack[CellOptions],
    ) -> None:  # fmt: skip
        super().__init__(peephole.cell(peepholes), input_size, hidden_size, bias, **options)


class CoupledLSTMCell(RecurrentCell):
    """One step of a CoupledLSTM: ``h, c = cell(x, (h, c))``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__(coupled.CELL, input_size, hidden_size, bias, **options)


class LayerNormLSTMCell(RecurrentCell):
    """One step of a LayerNormLSTM: ``h, c = cell(x, (h, c))``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__(layer_norm.CELL, input_size, hidden_size, bias, **options)


class SLSTMCell(RecurrentCell):
    """One step of an SLSTM: ``h, c, n, m = cell(x, (h, c, n, m))``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__(slstm.CELL, input_size, hidden_size, bias, **options)


class GeneralLSTMCell(RecurrentCell):
    """One step of a GeneralLSTM: ``h, c = cell(x, (h, c))``."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *,
        activations: tuple[Any, Any, Any] = ("sigmoid", "tanh", "tanh"), clip: float | None = None,
        peepholes: bool = False, coupled: bool = False, **options: Unpack[CellOptions],
    ) -> None:  # fmt: skip
        super().__init__(general.cell(activations, clip, peepholes, coupled), input_size, hidden_size, bias, **options)
