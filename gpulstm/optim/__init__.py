"""Optimisers: SGD, Adagrad, RMSprop, Adam and AdamW, with PyTorch's names, options, defaults and numbers."""

from gpulstm.optim.adagrad import Adagrad
from gpulstm.optim.adam import Adam, AdamW
from gpulstm.optim.optimizer import Optimizer
from gpulstm.optim.rmsprop import RMSprop
from gpulstm.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]
