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
    mse,
    relu,
    sigmoid,
    stack,
    tanh,
)
from gpulstm.nn.linear import Linear
from gpulstm.nn.lstm import LSTM
from gpulstm.nn.minimal import MinGRU, MinGRUCell, MinLSTM, MinLSTMCell
from gpulstm.nn.module import Module, Parameter, Sequential
from gpulstm.nn.recurrent import Recurrent
from gpulstm.nn.regularize import VariationalDropout, WeightDrop, Zoneout

__all__ = [
    "LSTM",
    "Attention",
    "Dropout",
    "Embedding",
    "LSTMCell",
    "Linear",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "Module",
    "Parameter",
    "Recurrent",
    "RecurrentCell",
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
    "mse",
    "relu",
    "sigmoid",
    "stack",
    "tanh",
]
