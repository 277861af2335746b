"""The interfaces of the two small programs gpulstm began with, on this library's cells and layers.

``LstmParam``, ``LstmState``, ``LstmNode`` and ``LstmNetwork`` are a minimal LSTM, one object a time step, whose
output is h = s * o, without a tanh; its small functions and its loss ``ToyLossLayer`` stand beside them, and
``example_0`` is its demonstration (``python -m gpulstm.classic``). ``LSTM_RNN`` learns sequences of integers. All
run on NumPy and on CuPy.

>>> net = LstmNetwork(LstmParam(mem_cell_ct=100, x_dim=50))
>>> net.x_list_add(x)  # x (50,); once for each step
>>> loss = net.y_list_is([0.5], ToyLossLayer)
>>> net.lstm_param.apply_diff(lr=0.1)
>>> net.x_list_clear()
"""

from gpulstm.classic.demonstration import example_0
from gpulstm.classic.functions import rand_arr, sigmoid, sigmoid_derivative, tanh_derivative
from gpulstm.classic.loss import LossLayer, ToyLossLayer
from gpulstm.classic.network import LstmNetwork, LstmNode, LstmState
from gpulstm.classic.parameters import LstmParam
from gpulstm.classic.rnn import LSTM_RNN

__all__ = [
    "LSTM_RNN", "LossLayer", "LstmNetwork", "LstmNode", "LstmParam", "LstmState", "ToyLossLayer", "example_0",
    "rand_arr", "sigmoid", "sigmoid_derivative", "tanh_derivative",
]  # fmt: skip
