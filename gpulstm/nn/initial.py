"""First values of parameters, drawn on the host so that a seed gives the same on every device."""

from typing import Any

import numpy as np

from gpulstm.backend import Device, as_dtype
from gpulstm.backend import device as find_device
from gpulstm.nn.module import Parameter
from gpulstm.random import default_generator


class Initial:
    """Draws parameters for one layer, on one device, of one type, from one generator."""

    def __init__(self, device: "str | Device | None", dtype: Any, generator: np.random.Generator | None) -> None:
        self.backend = find_device("auto" if device is None else device).backend
        self.dtype = as_dtype(np.float32 if dtype is None else dtype)
        self.generator = generator or default_generator()

    def uniform(self, bound: float, *shape: int) -> Parameter:
        """U(-bound, bound)."""
        return self.parameter(self.generator.uniform(-bound, bound, shape))

    def normal(self, *shape: int) -> np.ndarray:
        """N(0, 1), on the host for the caller to change."""
        return self.generator.standard_normal(shape)

    def parameter(self, values: np.ndarray) -> Parameter:
        """A parameter with these values."""
        with self.backend:
            return Parameter(self.backend.asarray(values.astype(self.dtype)))
