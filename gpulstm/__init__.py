"""gpulstm: LSTMs and other recurrent networks on NumPy arrays, and on CuPy arrays with fused CUDA kernels.

>>> import gpulstm as gl
>>> lstm = gl.LSTM(input_size=8, hidden_size=64)
>>> output, (h_n, c_n) = lstm(np.zeros((20, 4, 8), np.float32))  # x (T, B, 8)
"""

import importlib
from typing import Any

from gpulstm import functional
from gpulstm.backend import Device, device
from gpulstm.cell_checks import check_cell
from gpulstm.clip import clip_grad_norm, clip_grad_value
from gpulstm.dtypes import as_dtype
from gpulstm.errors import (
    CellError,
    DeviceError,
    DTypeError,
    FileExists,
    FormatError,
    GpulstmError,
    NoKernel,
    NotFinite,
    ProcessError,
    ShapeError,
)
from gpulstm.explain import explain
from gpulstm.grad_scaler import GradScaler
from gpulstm.nn import (
    ELU,
    GELU,
    GRU,
    LSTM,
    RNN,
    SLSTM,
    Attention,
    CoupledLSTM,
    CoupledLSTMCell,
    Dropout,
    Embedding,
    Flatten,
    GeneralLSTM,
    GeneralLSTMCell,
    GRUCell,
    LayerNorm,
    LayerNormLSTM,
    LayerNormLSTMCell,
    LeakyReLU,
    Linear,
    LogSoftmax,
    LSTMCell,
    MinGRU,
    MinGRUCell,
    MinLSTM,
    MinLSTMCell,
    Module,
    Parameter,
    PeepholeLSTM,
    PeepholeLSTMCell,
    Recurrent,
    RecurrentCell,
    ReLU,
    RNNCell,
    Sequential,
    Sigmoid,
    SiLU,
    SLSTMCell,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
    VariationalDropout,
    WeightDrop,
    Zoneout,
    binary_cross_entropy_with_logits,
    concatenate,
    cross_entropy,
    ctc_loss,
    exp,
    huber,
    linear_cross_entropy,
    log,
    log_softmax,
    maximum,
    minimum,
    mse,
    relu,
    sigmoid,
    softmax,
    stack,
    tanh,
    where,
)
from gpulstm.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from gpulstm.precision import precision
from gpulstm.random import manual_seed
from gpulstm.schedules import ConstantLR, CosineWarmup, ReduceLROnPlateau, StepLR
from gpulstm.tape import TapeError, Tensor, apply, enable_grad, no_grad, tensor
from gpulstm.threads import get_num_threads, set_num_threads
from gpulstm.version import __version__ as __version__

_ESTIMATORS = ("Forecaster", "LanguageModel", "SequenceClassifier", "Transcriber", "Translator")
_LATER = {
    **dict.fromkeys(_ESTIMATORS, "gpulstm.labs"),
    "Trainer": "gpulstm.train",
    "data": "gpulstm.data",
    "io": "gpulstm.io",
    "labs": "gpulstm.labs",
    "load": "gpulstm.io.saving",
    "parallel": "gpulstm.parallel",
    "plot": "gpulstm.plot",
    "save": "gpulstm.io.saving",
    "train": "gpulstm.train",
}


_PLAIN = ("ModuleDict", "ModuleList", "ParameterDict", "ParameterList")


def __getattr__(name: str) -> Any:
    """Import a submodule or class at its first use, if work with arrays alone does not need it."""
    if name not in _LATER:
        hint = "; use a plain list or dict as an attribute of a gl.Module instead" if name in _PLAIN else ""
        raise AttributeError(f"module 'gpulstm' has no attribute {name!r}{hint}")
    module = importlib.import_module(_LATER[name])
    return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "SLSTM",
    "Adagrad",
    "Adam",
    "AdamW",
    "Attention",
    "CellError",
    "ConstantLR",
    "CosineWarmup",
    "CoupledLSTM",
    "CoupledLSTMCell",
    "DTypeError",
    "Device",
    "DeviceError",
    "Dropout",
    "Embedding",
    "FileExists",
    "Flatten",
    "Forecaster",
    "FormatError",
    "GRUCell",
    "GeneralLSTM",
    "GeneralLSTMCell",
    "GpulstmError",
    "GradScaler",
    "LSTMCell",
    "LanguageModel",
    "LayerNorm",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "Module",
    "NoKernel",
    "NotFinite",
    "Parameter",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "ProcessError",
    "RMSprop",
    "RNNCell",
    "ReLU",
    "Recurrent",
    "RecurrentCell",
    "ReduceLROnPlateau",
    "SLSTMCell",
    "SequenceClassifier",
    "Sequential",
    "ShapeError",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "StepLR",
    "Tanh",
    "TapeError",
    "Tensor",
    "Trainer",
    "Transcriber",
    "Translator",
    "VariationalDropout",
    "WeightDrop",
    "Zoneout",
    "apply",
    "as_dtype",
    "binary_cross_entropy_with_logits",
    "check_cell",
    "clip_grad_norm",
    "clip_grad_value",
    "concatenate",
    "cross_entropy",
    "ctc_loss",
    "data",
    "device",
    "enable_grad",
    "exp",
    "explain",
    "functional",
    "get_num_threads",
    "huber",
    "io",
    "labs",
    "linear_cross_entropy",
    "load",
    "log",
    "log_softmax",
    "manual_seed",
    "maximum",
    "minimum",
    "mse",
    "no_grad",
    "parallel",
    "plot",
    "precision",
    "relu",
    "save",
    "set_num_threads",
    "sigmoid",
    "softmax",
    "stack",
    "tanh",
    "tensor",
    "train",
    "where",
]
