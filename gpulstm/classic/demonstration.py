"""The demonstration of the minimal LSTM, with four targets."""

import numpy as np

from gpulstm.backend import Device
from gpulstm.classic.loss import ToyLossLayer
from gpulstm.classic.network import LstmNetwork
from gpulstm.classic.parameters import LstmParam


def example_0(iterations: int = 100, lr: float = 0.1, device: "str | Device" = "cpu", seed: int = 0) -> list[float]:
    """Teach 100 cells to give -0.5, 0.2, 0.1, -0.5 for four random inputs of size 50; return the losses.

    Prints one line per iteration. The squared loss after 100 iterations is about 2e-6.

    Raises ShapeError unless iterations is an integer from 0 up, and DeviceError for a device that does not exist.

    >>> losses = gl.classic.example_0(iterations=1)
    iteration   0: y_pred = [...], loss ...
    >>> len(losses)
    1
    """
    generator = np.random.default_rng(seed)
    y_list = [-0.5, 0.2, 0.1, -0.5]
    x_list = generator.random((len(y_list), 50))
    net = LstmNetwork(LstmParam(100, 50, device=device, generator=generator))
    losses = []
    for iteration in range(iterations):
        for x in x_list:
            net.x_list_add(x)
        losses.append(float(net.y_list_is(y_list, ToyLossLayer)))
        given = ", ".join(f"{float(node.state.h[0]):8.5f}" for node in net.lstm_node_list)
        print(f"iteration {iteration:3d}: y_pred = [{given}], loss {losses[-1]:.3e}")
        net.lstm_param.apply_diff(lr)
        net.x_list_clear()
    return losses
