"""Layers: objects that own parameters and compute on Tensors."""

from gpulstm.nn.attention import Attention
from gpulstm.nn.cells import LSTMCell, RecurrentCell
from gpulstm.nn.dropout import Dropout
from gpulstm.nn.embedding import Embedding
from gpulstm.nn.functions import (
    binary_cross_entropy_with_logits,
    concatenate,
    cross_entropy,
    exp,
    huber,
    log,
    log_softmax,
    mse,
    relu,
    sigmoid,
    softmax,
    stack,
    tanh,
)
from gpulstm.nn.linear import Linear
from gpulstm.nn.lstm import LSTM
from gpulstm.nn.minimal import MinGRU, MinGRUCell, MinLSTM, MinLSTMCell
from gpulstm.nn.module import Module, Parameter
from gpulstm.nn.recurrent import Recurrent
from gpulstm.nn.regularize import VariationalDropout, WeightDrop, Zoneout
from gpulstm.nn.sequential import Sequential
from gpulstm.nn.variants import (
    GRU,
    RNN,
    SLSTM,
    CoupledLSTM,
    CoupledLSTMCell,
    GeneralLSTM,
    GeneralLSTMCell,
    GRUCell,
    LayerNormLSTM,
    LayerNormLSTMCell,
    PeepholeLSTM,
    PeepholeLSTMCell,
    RNNCell,
    SLSTMCell,
)

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SLSTM",
    "Attention",
    "CoupledLSTM",
    "CoupledLSTMCell",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GeneralLSTM",
    "GeneralLSTMCell",
    "LSTMCell",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "Linear",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "Module",
    "Parameter",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "RNNCell",
    "Recurrent",
    "RecurrentCell",
    "SLSTMCell",
    "Sequential",
    "VariationalDropout",
    "WeightDrop",
    "Zoneout",
    "binary_cross_entropy_with_logits",
    "concatenate",
    "cross_entropy",
    "exp",
    "huber",
    "log",
    "log_softmax",
    "mse",
    "relu",
    "sigmoid",
    "softmax",
    "stack",
    "tanh",
]
