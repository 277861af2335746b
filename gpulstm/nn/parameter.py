"""What has a name in a module: parameters, and layers, which are modules themselves."""

import numpy as np

from gpulstm.arguments import check_writable
from gpulstm.backend import Array, backend_of
from gpulstm.dtypes import FLOATS
from gpulstm.errors import DTypeError
from gpulstm.tape import Tensor


class Member:
    """Base of parameters and layers: what a walk over a module yields."""

    __slots__ = ()


class Parameter(Tensor, Member):
    """A Tensor that training changes in place: an attribute of a gl.Module that ``parameters()`` finds.

    ``data`` (...) is a writable NumPy or CuPy array; it is not copied. Raises DTypeError for anything but a floating
    array, and for a read-only one.

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
