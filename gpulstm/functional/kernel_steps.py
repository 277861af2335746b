"""The path for a GPU: one fused kernel per step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.backend import Array
from gpulstm.cells import Cell
from gpulstm.dtypes import accumulator
from gpulstm.errors import NoKernel
from gpulstm.functional.sequence import Sequence
from gpulstm.functional.steps import Steps
from gpulstm.kernel import Kernel, Rows
from gpulstm.launch import REALS, Launcher


class KernelSteps(Steps):
    """One fused CUDA kernel per step (kernels/step.cu); it also adds the biases and keeps old states."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seq, form = self.seq, self.seq.cell.kernel
        assert form is not None  # choose() checked
        self.kept = seq.backend.empty((seq.T, seq.B, form.kept * seq.H), seq.dtype)
        self.sizes, self.limits = (seq.B, seq.H), {}
        if form.rows:
            kernels = [self._entry(name) for name in ("step_forward", "step_backward")]
            threads = _power_of_two_below(min(kernel.max_threads for kernel in kernels))
            threads = min(threads, max(32, 1 << (seq.H - 1).bit_length()))
            self.limits = {"blocks": seq.B, "threads": threads, "shared": threads * accumulator(seq.dtype).itemsize}
        # What a step reads besides its products: the states before it, the vectors, and the shares that it keeps.
        self.entering = (*map(_rows, self.before), self.vectors)
        shares = _row_shares(seq.shares_h if self.keeps_h else None), _row_shares(seq.shares_c)
        self.shares = (_alive(seq), *shares)

    def start(self, zr: Array, v: Array | None) -> None:
        """See Steps."""
        z, biases, after = Rows(self.gates), (self.b_ih, self.b_hh), map(_rows, self.after)
        args = (z, zr, *biases, *self.entering, *self.shares, *self.sizes, z, Rows(self.kept), *after)
        self._forward = self._launches("step_forward", *args)
        if v is not None:
            self._inner = self._launches("step_inner", z, zr, *biases, *self.entering, *self.sizes, Rows(v))

    def start_backward(self, *gradients: Any) -> None:
        """See Steps."""
        super().start_backward(*gradients)
        kept, dzx = (Rows(self.gates), Rows(self.kept), *self.entering), Rows(self.dzx)
        dzr = Rows(self.dzr) if self.seq.cell.split else None
        args: tuple = (_rows(self.dy), self.dh, self.direct, *self.sizes, dzx, dzr, self.ds, self.dvectors)
        self._backward = self._launches("step_backward", *kept, *self.shares, *args)
        if self.dv is not None:
            args = (self.dv, *self.sizes, dzx, self.direct, self.ds)
            self._inner_backward = self._launches("step_inner_backward", *kept, *args)

    def forward(self, t: int) -> None:
        """See Steps."""
        self._forward(t)

    def backward(self, t: int) -> None:
        """See Steps."""
        self._backward(t)

    def inner(self, t: int) -> None:
        """See Steps."""
        self._inner(t)

    def inner_backward(self, t: int) -> None:
        """See Steps."""
        self._inner_backward(t)

    def _entry(self, name: str) -> Kernel:
        kernels = self.seq.backend.kernels
        assert kernels is not None  # choose() checked
        return _entry(kernels, name, self.seq.cell, self.seq.dtype)

    def _launches(self, name: str, *args: Any) -> Callable[[int], None]:
        return self._entry(name).over(self.seq.T, self.seq.B * self.seq.H, *args, **self.limits)


def _rows(array: Array | None) -> Rows | None:
    return None if array is None else Rows(array)


def _row_shares(shares: Array | None) -> Any:
    """Shares (T, B, width) row by row, or (1, B, width), the same row for every step."""
    return None if shares is None else shares[0] if len(shares) == 1 else Rows(shares)


def _alive(seq: Sequence) -> Rows | None:
    """Which sequences are alive at each step; a null pointer if all are."""
    return None if seq.modes.alive is None else Rows(seq.alive, np.asarray(~seq.modes.alive.all(axis=1)))


def _entry(kernels: Launcher, name: str, cell: Cell, dtype: Any) -> Kernel:
    form = cell.kernel
    assert form is not None
    return kernels.kernel(form.program, name, dtype, cell.defines, form.file, form.stamp)


def why_not(cell: Cell, kernels: Launcher, dtype: Any) -> str:
    """Why the cell has no kernels, or ""; those of a user's own file are compiled unless they already are."""
    if not cell.recurrent:
        return ""
    if cell.kernel is None:
        return f"the {cell.name} has no kernel"
    if dtype.name not in REALS:
        return f"no kernel stores {dtype.name}"
    if cell.kernel.own:
        try:
            _entry(kernels, "step_forward", cell, dtype)
        except NoKernel as reason:
            return str(reason)
    return ""


def _power_of_two_below(n: int) -> int:
    """The largest power of two that is not above n."""
    return 1 << (n.bit_length() - 1)
