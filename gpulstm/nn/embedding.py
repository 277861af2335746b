"""The layer that turns integer ids into vectors."""

from typing import Any

import numpy as np

from gpulstm import checks, functional
from gpulstm.backend import Device
from gpulstm.nn.arguments import as_ids, check_device
from gpulstm.nn.initial import Initial
from gpulstm.nn.module import Module, check_sizes
from gpulstm.tape import Tensor, apply


class Embedding(Module):
    """Looks up a vector for each id, as ``torch.nn.Embedding``: ids (...) integers -> (..., D), D = embedding_dim.

    ``weight`` (num_embeddings, embedding_dim) starts as N(0, 1). The row ``padding_idx`` starts as zeros and is not
    trained. Raises ShapeError for an id outside 0 <= id < num_embeddings, DTypeError for ids that are not integers.

    >>> gl.Embedding(10, 4)(np.array([[1, 2, 9]])).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: "str | Device | None" = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
    ) -> None:
        num_embeddings, embedding_dim = check_sizes(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None:
            words = f"-{num_embeddings} <= padding_idx < {num_embeddings}"
            padding_idx = checks.integer("padding_idx", padding_idx, -num_embeddings, num_embeddings, words)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        initial = Initial(device, dtype, generator)
        values = initial.normal(num_embeddings, embedding_dim)
        if padding_idx is not None:
            values[padding_idx] = 0
        self.weight = initial.parameter(values)

    @property
    def output_size(self) -> int:
        """The size of the output's last axis."""
        return self.embedding_dim

    def forward(self, ids: Any) -> Tensor:
        """Look up the rows: ids (...), integers in an array, Tensor or list, each below num_embeddings -> (..., D).

        A list or an array is copied to the device of the weight. Raises DTypeError for anything but integers,
        ShapeError for an id out of range or a ragged list, and DeviceError for a Tensor on another device.
        """
        ids = as_ids(ids, "ids", self.weight)
        check_device("ids", ids, weight=self.weight)
        return apply(functional.embedding, ids, self.weight, padding_idx=self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
