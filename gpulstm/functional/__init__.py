"""Pure functions on NumPy and CuPy arrays; each returns (value, pullback).

``pullback`` takes the gradients of the outputs and returns the gradients of the array arguments, with None for an
argument that has none. If the arrays are on a GPU that is not the current one, put both calls inside
``with gl.device("cuda:1").backend:``. The layers and Tensors do this for you.
"""

from gpulstm.functional.activation import activation, gelu
from gpulstm.functional.attention import attention
from gpulstm.functional.cross_entropy import cross_entropy
from gpulstm.functional.ctc import ctc_loss
from gpulstm.functional.dropout import dropout, variational_dropout
from gpulstm.functional.embedding import embedding
from gpulstm.functional.linear import linear
from gpulstm.functional.linear_cross_entropy import linear_cross_entropy
from gpulstm.functional.losses import binary_cross_entropy_with_logits, huber, mse
from gpulstm.functional.minimal import minimal
from gpulstm.functional.norm import layer_norm
from gpulstm.functional.recurrent import recurrent, trace
from gpulstm.functional.sequence import Noise
from gpulstm.functional.softmax import log_softmax, softmax

__all__ = [
    "Noise",
    "activation",
    "attention",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "ctc_loss",
    "dropout",
    "embedding",
    "gelu",
    "huber",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "minimal",
    "mse",
    "recurrent",
    "softmax",
    "trace",
    "variational_dropout",
]
