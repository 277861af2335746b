"""What has a name in a module: parameters, and layers, which are modules themselves."""

from gpulstm.backend import Array
from gpulstm.tape import Tensor


class Member:
    """Base of parameters and layers: what a walk over a module yields."""

    __slots__ = ()


class Parameter(Tensor, Member):
    """A tensor that a layer learns."""

    __slots__ = ()

    def __init__(self, data: Array) -> None:
        super().__init__(data, requires_grad=True)
