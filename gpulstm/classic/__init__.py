"""The interfaces of the two small programs that gpulstm began with, on this library's cells and layers.

The first is a minimal LSTM with one object per time step: ``LstmParam``, ``LstmState``, ``LstmNode`` and
``LstmNetwork``. Its output is h = s * o, without a tanh. ``ToyLossLayer`` is its loss and ``example_0`` its
demonstration, which ``python -m gpulstm.classic`` runs. The second, ``LSTM_RNN``, learns sequences of integers. Both
run on NumPy and on CuPy. New programs should use ``gl.LSTM``.

>>> from gpulstm.classic import LstmNetwork, LstmParam, ToyLossLayer
>>> net = LstmNetwork(LstmParam(mem_cell_ct=100, x_dim=50))
>>> for x in np.ones((2, 50)):  # two time steps
...     net.x_list_add(x)
>>> loss = net.y_list_is([0.5, -0.5], ToyLossLayer)  # a target for each step; computes the gradients
>>> net.lstm_param.apply_diff(lr=0.1)  # one step of gradient descent
>>> net.x_list_clear()  # ready for the next sequence
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
