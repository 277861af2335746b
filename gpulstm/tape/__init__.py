"""The tape: Tensors record the functions that made them, and ``backward`` runs the pullbacks of these functions.

Read the files in this order: node.py (the tape and the backward pass), tensor.py (Tensor and ``apply``), then what a
Tensor can do: operators.py, methods.py, exchange.py (conversions to NumPy and other libraries). versions.py detects
in-place writes, and recording.py switches the tape off. The functions themselves are in functional/; they take raw
arrays, not Tensors.
"""

from gpulstm.errors import TapeError
from gpulstm.tape.node import watching
from gpulstm.tape.recording import enable_grad, no_grad
from gpulstm.tape.tensor import Tensor, apply, backward, increment_version, raw, records, tensor

__all__ = [
    "TapeError",
    "Tensor",
    "apply",
    "backward",
    "enable_grad",
    "increment_version",
    "no_grad",
    "raw",
    "records",
    "tensor",
    "watching",
]
