"""The path of a GPU: one fused kernel a step."""

from typing import Any

from gpulstm.backend import Array
from gpulstm.dtypes import accumulator
from gpulstm.functional.steps import Steps


class KernelSteps(Steps):
    """One fused CUDA kernel a step (see cells.Kernels); it adds the biases and keeps states itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seq, kernels = self.seq, self.seq.backend.kernels
        assert kernels is not None and seq.cell.kernel is not None  # choose() looked
        form, kept = seq.cell.kernel, seq.cell.kernel.kept
        self.kept_rows = list(seq.backend.empty((seq.T if kept else 0, seq.B, kept * seq.H), seq.dtype))

        def entry(name: str) -> Any:
            return kernels.kernel(form.file, f"{form.name or seq.cell.name}_{name}", seq.dtype, form.defines)

        self._forward, self._backward = entry("forward"), entry("backward")
        if seq.cell.inner is not None:
            self._inner, self._inner_backward = entry("inner"), entry("inner_backward")
        self.size, self.grid = seq.B * seq.H, {}
        if form.rows:
            threads = min(1024, max(32, 1 << (seq.H - 1).bit_length()))
            acc = accumulator(seq.dtype)
            self.grid = {"blocks": seq.B, "threads": threads, "shared": threads * acc.itemsize}

    def forward(self, t: int, zr: Array) -> None:
        """See Steps."""
        z = self.z_rows[t]
        self._launch(self._forward, z, zr, self.b_ih, self.b_hh, *self.before_rows[t], *self.vectors,
                     *self._kept(t), *self._sizes, z, *self.kept_rows[t : t + 1], *self.after_rows[t])  # fmt: skip

    def backward(self, t: int, dy: Array | None, dh: Any, direct: Any, ds: list) -> None:
        """See Steps."""
        self._launch(self._backward, self.z_rows[t], *self.kept_rows[t : t + 1], *self.before_rows[t], *self.vectors,
                     *self._kept(t), dy, dh, direct, *self._sizes, *self._dz(t), *ds, *self.dvectors)  # fmt: skip

    def inner(self, t: int, zr: Array, v: Array) -> None:
        """See Steps."""
        self._launch(self._inner, self.z_rows[t], zr, self.b_ih, self.b_hh, *self.before_rows[t], *self.vectors,
                     *self._sizes, v)  # fmt: skip

    def inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None:
        """See Steps."""
        self._launch(self._inner_backward, self.z_rows[t], *self.kept_rows[t : t + 1], *self.before_rows[t],
                     *self.vectors, dv, *self._sizes, *self._dz(t), direct, *ds, *self.dvectors)  # fmt: skip

    def _launch(self, kernel: Any, *args: Any) -> None:
        kernel(self.size, *args, **self.grid)

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.seq.B, self.seq.H

    def _kept(self, t: int) -> list:
        """alive and the shares of the old states: keep_h, and keep_c where there are other states."""
        return [self.seq.alive_rows[t], *(keep[t] for keep in self.keep_rows[:2])]

    def _dz(self, t: int) -> tuple:
        return (self.dzx_rows[t], self.dzr_rows[t]) if self.seq.cell.split else (self.dzx_rows[t],)
