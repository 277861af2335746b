"""The LSTM of onnxruntime as an implementation to compare with, on the CPU and for inference only."""

import os

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers import Peer
from benchmarks.problem import Problem

OPSET, IR = 14, 8  # the LSTM's equations are the same in every later opset; old runtimes read these


class OnnxRuntime(Peer):
    """One LSTM node of the ONNX operators."""

    path = "session"

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: as many as it likes
        model = model_of(problem).SerializeToString()
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.x = problem.x

    def inference(self) -> tuple:
        y, h_n, c_n = self.session.run(None, {"X": self.x})
        return y[:, 0], h_n, c_n


def model_of(problem: Problem):
    """The model of one layer in one direction: X (T, B, D) -> Y (T, 1, B, H), Y_h (1, B, H), Y_c (1, B, H)."""
    shape, (weights,) = problem.shape, problem.weights
    T, B, D, H = shape.T, shape.B, shape.D, shape.H
    constants = {
        "W": _onnx_order(weights.w_ih)[None],
        "R": _onnx_order(weights.w_hh)[None],
        "B": np.concatenate([_onnx_order(weights.b_ih), _onnx_order(weights.b_hh)])[None],
    }
    sizes = {"Y": (T, 1, B, H), "Y_h": (1, B, H), "Y_c": (1, B, H)}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["X", "W", "R", "B"], list(sizes), hidden_size=H)],
        "lstm",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, (T, B, D))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _onnx_order(rows: np.ndarray) -> np.ndarray:
    """Rows of the gates i, f, g, o in ONNX's order i, o, f, c."""
    i, f, g, o = np.split(rows, 4)
    return np.concatenate([i, o, f, g])
