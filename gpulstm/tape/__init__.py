"""The tape: Tensors remember the functions they came by, and ``backward`` runs these functions' pullbacks.

Read it in this order: node.py (the tape and the way back), tensor.py (Tensor and ``apply``), then what a Tensor can
do: operators.py, methods.py, exchange.py (with NumPy and other libraries). versions.py notices writes in place,
recording.py switches the tape off. The functions themselves stand in functional/ and know nothing of Tensors.
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
