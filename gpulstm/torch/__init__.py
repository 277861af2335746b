"""gpulstm's layers inside PyTorch: change ``torch.nn.LSTM`` to ``gpulstm.torch.LSTM`` and keep the model.

>>> from gpulstm.torch import LSTM
>>> lstm = LSTM(input_size=8, hidden_size=64)  # a torch.nn.Module with the parameters of torch.nn.LSTM
>>> output, (h_n, c_n) = lstm(torch.zeros(20, 4, 8))  # tensors

gpulstm does the arithmetic: its compiled engine on the processor, its kernels on a GPU. Nothing else in the package
imports torch. memory.py shares memory with torch, call.py holds the function that torch differentiates, and module.py,
layers.py and cells.py hold the modules.
"""

from gpulstm.torch.cells import (
    CoupledLSTMCell,
    GeneralLSTMCell,
    GRUCell,
    LayerNormLSTMCell,
    LSTMCell,
    MinGRUCell,
    MinLSTMCell,
    PeepholeLSTMCell,
    RecurrentCell,
    RNNCell,
    SLSTMCell,
)
from gpulstm.torch.layers import (
    GRU,
    LSTM,
    RNN,
    SLSTM,
    Attention,
    CoupledLSTM,
    GeneralLSTM,
    LayerNormLSTM,
    MinGRU,
    MinLSTM,
    PeepholeLSTM,
    Recurrent,
)
from gpulstm.torch.module import Module

__all__ = [
    "GRU", "LSTM", "RNN", "SLSTM", "Attention", "CoupledLSTM", "CoupledLSTMCell", "GRUCell", "GeneralLSTM",
    "GeneralLSTMCell", "LSTMCell", "LayerNormLSTM", "LayerNormLSTMCell", "MinGRU", "MinGRUCell", "MinLSTM",
    "MinLSTMCell", "Module", "PeepholeLSTM", "PeepholeLSTMCell", "RNNCell", "Recurrent", "RecurrentCell", "SLSTMCell",
]  # fmt: skip
