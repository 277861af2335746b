"""What the tests of ONNX share: models of one operator, and onnxruntime, which runs models."""

import numpy as np

from tests.conftest import require

onnx = require("onnx")
onnxruntime = require("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

RTOL = 1e-5  # float32, a handful of steps: 1e-7 times the sums of both sides
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h"), "RNN": ("Y", "Y_h")}


def run(model, **feeds) -> list[np.ndarray]:
    """The model's outputs from onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def operator_model(kind: str, arrays: dict, inputs=("X", "initial_h", "initial_c", "sequence_lens"), **attributes):
    """A model of one node; arrays that are not among ``inputs`` stand in it."""
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c", "P"] if kind == "LSTM" else [])]
    node = helper.make_node(
        kind, [name if name in arrays else "" for name in names], list(OUTPUTS[kind]), name="layer", **attributes
    )
    number = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info(n, number(a.dtype), a.shape) for n, a in arrays.items() if n in inputs],
        [helper.make_tensor_value_info(name, number(arrays["X"].dtype), None) for name in OUTPUTS[kind]],
        [numpy_helper.from_array(a, n) for n, a in arrays.items() if n not in inputs],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def stranger(kind: str = "LSTM"):
    """A whole model, to be damaged: H = 2, D = 3, one direction."""
    rng, G = generator(), GATES[kind]
    shapes = {"X": (4, 2, 3), "W": (1, G * 2, 3), "R": (1, G * 2, 2), "B": (1, G * 4), "initial_h": (1, 2, 2)}
    shapes |= {"P": (1, 6)} if kind == "LSTM" else {}
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    arrays["sequence_lens"] = np.array([4, 2], np.int32)
    return operator_model(kind, arrays, inputs=("X",), hidden_size=2)
