"""Parameter, and Member, the base class of the named parts of a module: parameters and layers."""

import numpy as np

from gpulstm.arguments import check_writable
from gpulstm.backend import Array, backend_of
from gpulstm.dtypes import FLOATS
from gpulstm.errors import DTypeError
from gpulstm.tape import Tensor


class Member:
    """The base class of parameters and layers, which a walk over a module yields."""

    __slots__ = ()


class Parameter(Tensor, Member):
    """A Tensor to train: assign it to an attribute of a gl.Module, and ``parameters()`` returns it.

    Optimisers update it in place. ``data`` (...) is a writable NumPy or CuPy array, which is not copied. Raises
    DTypeError for anything but a floating array, and for a read-only one.

    >>> gl.Parameter(np.zeros(3, np.float32)).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Array) -> None:
        backend_of(data=data)
        data = np.asarray(data) if isinstance(data, np.generic) else data
        if not hasattr(data, "dtype") or data.dtype.name not in FLOATS:
            got = getattr(data, "dtype", type(data).__name__)
            raise DTypeError(f"data: expected an array of {', '.join(FLOATS)}, got {got}")
        check_writable("data", data)
        super().__init__(data, requires_grad=True)
