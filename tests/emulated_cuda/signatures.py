"""What of CuPy the stand-in offers, with CuPy 14's own signatures; test_emulated_cuda.py compares them.

A call is bound to the signature here before NumPy sees it, so that an argument NumPy takes and CuPy does not
(``np.sum(..., initial=)``) fails as it would on a GPU.
"""

import inspect

FUNCTIONS = """
zeros(shape, dtype=float, order='C')
ones(shape, dtype=float, order='C')
full(shape, fill_value, dtype=None, order='C')
empty(shape, dtype=float, order='C')
zeros_like(a, dtype=None, order='K', subok=None, shape=None)
ones_like(a, dtype=None, order='K', subok=None, shape=None)
full_like(a, fill_value, dtype=None, order='K', subok=None, shape=None)
empty_like(prototype, dtype=None, order='K', subok=None, shape=None)
arange(start, stop=None, step=1, dtype=None)
linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0)
eye(N, M=None, k=0, dtype=float, order='C')
array(obj, dtype=None, copy=True, order='K', subok=False, ndmin=0, *, blocking=False)
asarray(a, dtype=None, order=None, *, copy=None, blocking=False)
ascontiguousarray(a, dtype=None)
copy(a, order='K')
asnumpy(a, stream=None, order='C', out=None, *, blocking=True)
from_dlpack(array, *, device=None, copy=None)
reshape(a, newshape, order='C', *, copy=None)
ravel(a, order='C')
transpose(a, axes=None)
swapaxes(a, axis1, axis2)
moveaxis(a, source, destination)
expand_dims(a, axis)
squeeze(a, axis=None)
broadcast_to(array, shape)
split(ary, indices_or_sections, axis=0)
array_split(ary, indices_or_sections, axis=0)
concatenate(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
stack(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
vstack(tup, *, dtype=None, casting='same_kind')
hstack(tup, *, dtype=None, casting='same_kind')
flip(a, axis=None)
roll(a, shift, axis=None)
tile(A, reps)
repeat(a, repeats, axis=None)
take(a, indices, axis=None, out=None)
take_along_axis(a, indices, axis)
triu(m, k=0)
tril(m, k=0)
diag(v, k=0)
where(condition, x=None, y=None)
nonzero(a)
flatnonzero(a)
count_nonzero(a, axis=None)
searchsorted(a, v, side='left', sorter=None)
sort(a, axis=-1, kind=None)
argsort(a, axis=-1, kind=None)
unique(ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *, equal_nan=True)
sum(a, axis=None, dtype=None, out=None, keepdims=False)
prod(a, axis=None, dtype=None, out=None, keepdims=False)
mean(a, axis=None, dtype=None, out=None, keepdims=False)
var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
max(a, axis=None, out=None, keepdims=False)
min(a, axis=None, out=None, keepdims=False)
amax(a, axis=None, out=None, keepdims=False)
amin(a, axis=None, out=None, keepdims=False)
argmax(a, axis=None, dtype=None, out=None, keepdims=False)
argmin(a, axis=None, dtype=None, out=None, keepdims=False)
cumsum(a, axis=None, dtype=None, out=None)
any(a, axis=None, out=None, keepdims=False)
all(a, axis=None, out=None, keepdims=False)
clip(a, a_min, a_max, out=None)
dot(a, b, out=None)
matmul(*args, axes=None, axis=None, keepdims=False, casting='same_kind', dtype=None, signature=None, order='K', out=None)
tensordot(a, b, axes=2)
einsum(*operands, **kwargs)
outer(a, b, out=None)
isclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False)
allclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False)
array_equal(a1, a2, equal_nan=False)
result_type(*arrays_and_dtypes)
promote_types(type1, type2, /)
can_cast(from_, to, casting='safe')
may_share_memory(a, b, max_work=None)
shares_memory(a, b, max_work=None)
copyto(dst, src, casting='same_kind', where=None)
"""  # noqa: E501

# Methods of ndarray that are NumPy's method of that name; those with a body of their own stand in arrays.py.
METHODS = """
all(axis=None, out=None, keepdims=False)
any(axis=None, out=None, keepdims=False)
argmax(axis=None, out=None, dtype=None, keepdims=False)
argmin(axis=None, out=None, dtype=None, keepdims=False)
argsort(axis=-1, kind=None)
astype(dtype, order='K', casting=None, subok=None, copy=True)
clip(min=None, max=None, out=None)
cumsum(axis=None, dtype=None, out=None)
diagonal(offset=0, axis1=0, axis2=1)
dot(b, out=None)
flatten(order='C')
max(axis=None, out=None, keepdims=False)
mean(axis=None, dtype=None, out=None, keepdims=False)
min(axis=None, out=None, keepdims=False)
nonzero()
prod(axis=None, dtype=None, out=None, keepdims=None)
ravel(order='C')
repeat(repeats, axis=None)
reshape(*shape, order='C', copy=None)
round(decimals=0, out=None)
searchsorted(v, side='left', sorter=None)
sort(axis=-1, kind=None)
squeeze(axis=None)
std(axis=None, dtype=None, out=None, ddof=0, keepdims=False)
sum(axis=None, dtype=None, out=None, keepdims=False)
swapaxes(axis1, axis2)
take(indices, axis=None, out=None)
transpose(*axes)
var(axis=None, dtype=None, out=None, ddof=0, keepdims=False)
"""

# Elementwise functions.
_UFUNCS = """
abs absolute add arctan bitwise_and bitwise_or bitwise_xor ceil copysign cos cosh divide divmod equal exp
exp2 expm1 floor floor_divide fmax fmin greater greater_equal invert isfinite isinf isnan left_shift less
less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor maximum minimum mod
multiply negative not_equal positive power reciprocal remainder right_shift rint sign signbit sin sinh sqrt
square subtract tan tanh true_divide trunc
"""

_CONSTANTS = """
bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128
dtype finfo iinfo newaxis inf nan pi e generic integer floating number
"""
UFUNCS, CONSTANTS = _UFUNCS.split(), _CONSTANTS.split()


def parse(table: str) -> dict[str, inspect.Signature]:
    """The lines of a table above as signatures by name."""
    lines = (line.partition("(") for line in table.strip().splitlines())
    return {name: inspect.signature(eval(f"lambda {rest[:-1]}: None")) for name, _, rest in lines}
