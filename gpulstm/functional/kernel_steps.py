"""The path of a GPU: one fused kernel a step."""

from typing import Any

from gpulstm.backend import Array
from gpulstm.cells import Cell
from gpulstm.dtypes import accumulator
from gpulstm.errors import NoKernel
from gpulstm.functional.steps import Steps
from gpulstm.launch import REALS, Launcher


class KernelSteps(Steps):
    """One fused CUDA kernel a step (kernels/step.cu); it adds the biases and keeps states itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seq, cell, kernels = self.seq, self.seq.cell, self.seq.backend.kernels
        assert kernels is not None and cell.kernel is not None  # choose() looked
        form = cell.kernel
        self.kept_rows = list(seq.backend.empty((seq.T, seq.B, form.kept * seq.H), seq.dtype))

        def entry(name: str) -> Any:
            return _entry(kernels, name, cell, seq.dtype)

        self._forward, self._backward = entry("step_forward"), entry("step_backward")
        if cell.inner is not None:
            self._inner, self._inner_backward = entry("step_inner"), entry("step_inner_backward")
        self.sizes, self.grid = (seq.B, seq.H), {}
        if form.rows:
            most = min(kernel.max_threads for kernel in (self._forward, self._backward))
            threads = min(_power_of_two_below(most), max(32, 1 << (seq.H - 1).bit_length()))
            self.grid = {"blocks": seq.B, "threads": threads, "shared": threads * accumulator(seq.dtype).itemsize}

    def forward(self, t: int, zr: Array) -> None:
        """See Steps."""
        z = self.z_rows[t]
        self._launch(self._forward, z, zr, self.b_ih, self.b_hh, *self.before_rows[t], self.vectors, *self._shares(t),
                     *self.sizes, z, self.kept_rows[t], *self.after_rows[t])  # fmt: skip

    def backward(self, t: int, dy: Array | None, dh: Any, direct: Any, ds: Any) -> None:
        """See Steps."""
        dz = self.dzx_rows[t], self.dzr_rows[t] if self.seq.cell.split else None
        self._launch(self._backward, self.z_rows[t], self.kept_rows[t], *self.before_rows[t], self.vectors,
                     *self._shares(t), dy, dh, direct, *self.sizes, *dz, ds, self.dvectors)  # fmt: skip

    def inner(self, t: int, zr: Array, v: Array) -> None:
        """See Steps."""
        self._launch(self._inner, self.z_rows[t], zr, self.b_ih, self.b_hh, *self.before_rows[t], self.vectors,
                     *self.sizes, v)  # fmt: skip

    def inner_backward(self, t: int, dv: Array, direct: Any, ds: Any) -> None:
        """See Steps."""
        self._launch(self._inner_backward, self.z_rows[t], self.kept_rows[t], *self.before_rows[t], self.vectors, dv,
                     *self.sizes, self.dzx_rows[t], direct, ds)  # fmt: skip

    def _launch(self, kernel: Any, *args: Any) -> None:
        kernel(self.seq.B * self.seq.H, *args, **self.grid)

    def _shares(self, t: int) -> tuple:
        """alive, and the shares of the old h and of the other old states."""
        return self.seq.alive_rows[t], self.keep_h[t], self.seq.keep_c[t]


def _entry(kernels: Launcher, name: str, cell: Cell, dtype: Any) -> Any:
    form = cell.kernel
    assert form is not None
    return kernels.kernel(form.program, name, dtype, cell.defines, form.file, form.stamp)


def why_not(cell: Cell, kernels: Launcher, dtype: Any) -> str:
    """Why the cell has no kernels, or ""; those of a user's own file are compiled if that was not done."""
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
