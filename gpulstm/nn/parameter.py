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
    """A tensor that a layer learns, in place: its array must be one that can be written to.

    Raises DTypeError for what is no array of floats, and for a read-only one.
    """

    __slots__ = ()

    def __init__(self, data: Array) -> None:
        backend_of(data=data)
        data = np.asarray(data) if isinstance(data, np.generic) else data
        if not hasattr(data, "dtype") or data.dtype.name not in FLOATS:
            got = getattr(data, "dtype", type(data).__name__)
            raise DTypeError(f"data: want an array of {', '.join(FLOATS)}, got {got}")
        check_writable("data", data)
        super().__init__(data, requires_grad=True)
