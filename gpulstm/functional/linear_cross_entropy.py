"""A linear layer and the softmax cross-entropy of its outputs in one function, for large vocabularies.

The logits of all rows are never in memory at once (Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language
Models"). The function computes them for a chunk of rows, then that chunk's losses and its part of the gradients, and
reuses the memory for the next chunk. If the loss is one number, the forward pass also computes the gradients, up to the
factor dloss that backward supplies. This takes three matrix products in all, none of them twice (as in Liger Kernel,
Hsu et al. 2024).
"""

from collections.abc import Callable, Iterator

from gpulstm.backend import Array, Backend
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_arrays, check_floats, check_indices, check_shape
from gpulstm.functional.cross_entropy import check_options, on_rows, reduced
from gpulstm.functional.linear import multiplied, product
from gpulstm.functional.needs import needs
from gpulstm.precision import keeps_precision

_LEAST = 1 << 22  # logits of a chunk at least: smaller chunks would read the weight too often
# Elements of the weight or its gradient that are converted or added at a time; on a GPU each block costs some launches.
_BLOCK, _BLOCK_CUDA = 1 << 18, 1 << 22


@needs({k: (0, 1, 3) for k in range(5)})
@keeps_precision
def linear_cross_entropy(
    input: Array,
    linear_weight: Array,
    target: Array,
    linear_bias: Array | None = None,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    input_gradient: bool = True,
    weight_gradient: bool = True,
    bias_gradient: bool = True,
) -> tuple[Array, Callable]:
    """Compute ``cross_entropy(linear(input, linear_weight, linear_bias), target, weight)`` without storing all logits.

    ``loss, pullback = linear_cross_entropy(input, linear_weight, target)``, as in PyTorch. input (..., D),
    linear_weight (V, D), linear_bias (V,) or None; target (...) integers, each 0 <= target < V or ``ignore_index``;
    class weights ``weight`` (V,) or None. loss: () or, with reduction="none", target's shape. ``pullback(dloss)``
    returns (dinput, dlinear_weight, None, dlinear_bias, None), with None also for a gradient that its option turns off.

    With "mean" and "sum" the call itself computes the gradients, and the first pullback returns them. Each further
    pullback computes them again, with the same bits. With "none" each pullback computes them. If you turn off all three
    gradients, only the loss is computed. Besides arguments and results, the function stores the logits of N / 32 of the
    N rows and, for half types, half of the weight's gradient in float32. For 8,192 rows, 50,000 classes and up to 512
    features this is less than a tenth of all logits.

    Raises ShapeError, DTypeError or DeviceError as ``linear`` and ``cross_entropy`` do.

    >>> loss, pullback = gl.functional.linear_cross_entropy(np.zeros((2, 3)), np.ones((4, 3)), np.array([0, 3]))
    >>> round(float(loss), 4)
    1.3863
    """
    optional = ("linear_bias", "weight")
    arrays = {"input": input, "linear_weight": linear_weight, "linear_bias": linear_bias, "weight": weight}
    backend = check_arrays(optional, **arrays, target=target)
    dtype = check_floats(**arrays)
    ignore, smoothing = check_options(reduction, ignore_index, label_smoothing)
    _check_shapes(input, linear_weight, target, linear_bias, weight)
    V, D = linear_weight.shape
    flat = check_indices("target", target, V, "classes, rows of linear_weight", ignore=ignore).reshape(-1)
    head = _Head(backend, input.reshape(flat.size, D), linear_weight, linear_bias)
    made: list[_Gradients] = []

    def run(drow: Array | None, with_gradients: bool) -> tuple[Array, Array]:
        """(loss, weight) of every row; the gradients of sum(drow * loss) are appended to ``made``."""
        wide = accumulator(dtype)
        row_loss, row_weight = backend.empty(flat.shape, wide), backend.empty(flat.shape, wide)
        sums = _Gradients(head, input_gradient, weight_gradient, bias_gradient) if with_gradients else None
        for at, logits in head.chunks():
            row_loss[at], row_weight[at], gradient = on_rows(
                backend, logits, flat[at], weight, ignore, smoothing, in_place=True
            )
            if sums is not None:
                sums.add(at, gradient(None if drow is None else drow[at]))
        if sums is not None:
            made.append(sums)
        return row_loss, row_weight

    wanted = input_gradient or weight_gradient or (bias_gradient and linear_bias is not None)
    row_loss, row_weight = run(None, wanted and reduction != "none")
    loss, scale = reduced(backend.xp, row_loss, row_weight, reduction)

    def pullback(dloss: Array) -> tuple[Array | None, Array | None, None, Array | None, None]:
        if not wanted:
            return None, None, None, None, None
        dloss = dloss.astype(row_loss.dtype, copy=False)
        if reduction == "none":
            run(dloss.reshape(-1), True)
            factor = 1.0
        else:
            factor = scale * dloss.reshape(())
            if not made:
                run(None, True)
        dinput, dweight, dbias = made.pop().scaled(factor)
        return None if dinput is None else dinput.reshape(input.shape), dweight, None, dbias, None

    shape = target.shape if reduction == "none" else ()
    return loss.reshape(shape).astype(dtype, copy=False), pullback


def _check_shapes(x: Array, linear_weight: Array, target: Array, bias: Array | None, weight: Array | None) -> None:
    if linear_weight.ndim != 2:
        raise ShapeError(f"linear_weight: expected (classes, in), got {linear_weight.shape}")
    V, D = linear_weight.shape
    if x.ndim == 0 or x.shape[-1] != D:
        raise ShapeError(f"input: expected (..., {D}) = (..., in), got {x.shape}")
    if bias is not None:
        check_shape("linear_bias", bias, (V,), "(classes,)")
    check_shape("target", target, x.shape[:-1], "input's shape without its last axis")
    if V == 0 and target.size:
        raise ShapeError(f"linear_weight: expected at least one class, got {linear_weight.shape}")
    if weight is not None:
        check_shape("weight", weight, (V,), "(classes,)")


class _Head:
    """The affine map from x (N, D) to logits (N, V). NumPy's half types are multiplied in float32."""

    def __init__(self, backend: Backend, x: Array, weight: Array, bias: Array | None) -> None:
        self.backend, self.x, self.weight, self.bias = backend, x, weight, bias
        self.wide = accumulator(x.dtype)
        self.dtype = x.dtype if backend.is_cuda else self.wide  # of the products

    def rows(self, at: slice) -> Array:
        """Rows of x in the dtype of the products."""
        return self.x[at].astype(self.dtype, copy=False)

    def words(self) -> Iterator[tuple[slice, Array]]:
        """The weight in the dtype of the products, in blocks of rows if it must be converted."""
        V, D = self.weight.shape
        for at in [slice(0, V)] if self.weight.dtype == self.dtype else self.blocks(V, D):
            yield at, self.weight[at].astype(self.dtype, copy=False)

    def blocks(self, stop: int, width: int) -> Iterator[slice]:
        """Slices of the rows of an array (stop, width), each about a block of elements."""
        step = max((_BLOCK_CUDA if self.backend.is_cuda else _BLOCK) // max(width, 1), 1)
        for first in range(0, stop, step):
            yield slice(first, min(first + step, stop))

    def chunks(self) -> Iterator[tuple[slice, Array]]:
        """(rows, their logits) for chunks of nearly the same size; all chunks use the same memory."""
        (N, _), V = self.x.shape, self.weight.shape[0]
        # With half types the chunks are smaller: the float32 sums of the weight's gradient take memory too.
        parts = 32 if self.x.dtype == self.wide else 64 * self.dtype.itemsize // self.x.dtype.itemsize
        most = max(_LEAST // max(V, 1), min(N // parts, 1024), 1)
        count = max(-(-N // most), 1)
        size = max(-(-N // count), 1)
        memory = self.backend.empty((size, V), self.dtype)
        for start in range(0, N, size):
            at = slice(start, min(start + size, N))
            logits = memory[: at.stop - start]
            self.logits(at, logits)
            yield at, logits

    def logits(self, at: slice, out: Array) -> None:
        """Write the logits of rows ``at`` to ``out`` (rows, V)."""
        rows, bias = self.rows(at), None if self.bias is None else self.bias.astype(self.dtype, copy=False)
        for words, weight in self.words():
            own = None if bias is None else bias[words]
            if len(weight) == out.shape[1]:
                multiplied(self.backend, rows, weight.T, own, out=out)
            else:
                out[:, words] = multiplied(self.backend, rows, weight.T, own)[0]


class _Gradients:
    """The gradients of x, the weight and the bias; each chunk adds its part, in float32 for half types.

    The float32 sums for a half type take twice the memory of the result, so the memory of the result holds the sums of
    the first half of the words. On a GPU a chunk's part is a product in the half type: it accumulates in float32 and is
    rounded once.
    """

    def __init__(self, head: _Head, x: bool, weight: bool, bias: bool) -> None:
        backend, (N, D), V, dtype = head.backend, head.x.shape, head.weight.shape[0], head.x.dtype
        self.head = head
        self.dx = backend.empty((N, D), dtype) if x else None
        self.dbias = backend.zeros((V,), head.wide) if bias and head.bias is not None else None
        self.dweight = backend.empty((V, D), dtype) if weight else None
        self.sums: list[tuple[int, Array]] = []  # (the first word, the sums from there on)
        if self.dweight is None:
            return
        within = V if dtype == head.wide else V // 2
        memory = self.dweight.reshape(-1)[: within * D * (head.wide.itemsize // dtype.itemsize)]
        self.sums = [(0, memory.view(head.wide).reshape(within, D))]
        if within < V:
            self.sums.append((within, backend.empty((V - within, D), head.wide)))
        for _, sums in self.sums:
            sums[...] = 0

    def add(self, at: slice, dlogits: Array) -> None:
        """Add the part of rows ``at``; dlogits (rows, V) has the dtype of the products."""
        head, rows = self.head, self.head.rows(at)
        if self.dx is not None:
            self._add_x(self.dx[at], dlogits)
        for first, sums in self.sums:
            for words in head.blocks(*sums.shape):
                part = dlogits[:, first + words.start : first + words.stop].T
                dweight, dbias = multiplied(head.backend, part, rows, sums=self.dbias is not None)
                sums[words] += dweight
                if self.dbias is not None:
                    self.dbias[first + words.start : first + words.stop] += dbias
        if self.dbias is not None and not self.sums:
            ones = head.backend.xp.ones((len(rows), 1), head.dtype)
            self.dbias += product(head.backend, dlogits.T, ones)[:, 0]

    def _add_x(self, dx: Array, dlogits: Array) -> None:
        head = self.head
        if dx.dtype == head.dtype:
            multiplied(head.backend, dlogits, head.weight, out=dx)
            return
        wide = head.backend.zeros(dx.shape, head.dtype)
        for words, weight in head.words():
            wide += multiplied(head.backend, dlogits[:, words], weight)[0]
        dx[...] = wide.astype(dx.dtype)

    def scaled(self, factor: Array | float) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dweight, dbias) times the factor, computed in place: call it once."""
        wide, dtype, dweight = self.head.wide, self.head.x.dtype, self.dweight
        width = 4 * self.head.x.shape[1]  # an element takes as much memory here as four in a product
        if self.dx is not None:
            for at in self.head.blocks(len(self.dx), width):
                self.dx[at] = (self.dx[at].astype(wide, copy=False) * factor).astype(dtype, copy=False)
        for first, sums in self.sums:
            assert dweight is not None
            for at in self.head.blocks(len(sums), width):
                # Sums stored in dweight are read before they are overwritten: a sum takes more memory than a result.
                dweight[first + at.start : first + at.stop] = (sums[at] * factor).astype(dtype, copy=False)
        dbias = None if self.dbias is None else (self.dbias * factor).astype(dtype, copy=False)
        return self.dx, dweight, dbias
