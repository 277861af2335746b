"""Checks one step of a cell's equations: the results of forward, and backward against central differences."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpulstm.cells import Cell
from gpulstm.errors import CellError

B, H = 2, 3  # sequences and units
STEP = 1e-5  # of the differences, which are of fourth order
TOLERANCE = 1e-6  # of a gradient, relative to the largest in its array; the differences are accurate to 1e-10


class Inputs(NamedTuple):
    """The inputs of one step; for a cell with an inner product, zr has all columns filled."""

    zx: np.ndarray
    zr: np.ndarray
    states: list[np.ndarray]
    extra: list[np.ndarray]

    def arrays(self) -> list[np.ndarray]:
        return [self.zx, self.zr, *self.states, *self.extra]

    def astype(self, dtype: Any) -> "Inputs":
        """A copy in this dtype."""
        zx, zr, *rest = (array.astype(dtype) for array in self.arrays())
        return Inputs(zx, zr, rest[: len(self.states)], rest[len(self.states) :])


def draw(cell: Cell, rng: np.random.Generator, units: int = H, rows: int = B) -> Inputs:
    """Random inputs in float64; the states are close to states that the cell reaches from zero."""
    G, make = len(cell.gates), rng.standard_normal
    extra = [make(form.blocks * units) * 0.5 + (form.initial or 0.0) for form in cell.extra if not form.matrix]
    inputs = Inputs(
        make((rows, G * units)), make((rows, G * units)), [np.zeros((rows, units))] * len(cell.states), extra
    )
    for _ in range(3):
        states, _ = _forward(cell, inputs)
        nearby = [state + 0.05 * make(state.shape) for state in states[: len(cell.states)]]
        inputs = Inputs(make((rows, G * units)), make((rows, G * units)), nearby, extra)
    return inputs


def check_equations(cell: Cell, rng: np.random.Generator) -> None:
    """Raise CellError for the first problem in forward or backward."""
    inputs = draw(cell, rng)
    single = inputs.astype(np.float32)  # must stay float32, forward and backward
    outputs, _ = _forward(cell, single)
    slopes = _slopes(cell, inputs)
    _check_flags(cell, slopes)
    _backward(cell, single, [np.ones_like(output) for output in outputs])
    for number, name in enumerate(_outputs(cell)):
        given = [np.zeros((B, H)) for _ in _outputs(cell)]
        given[number] = rng.standard_normal((B, H))
        _check_gradients(cell, _backward(cell, inputs, given), slopes, number, given[number], name)
        _check_memory(cell, inputs, given)


def remarks(cell: Cell, rng: np.random.Generator) -> list[str]:
    """Warnings that are not errors: NaN for large pre-activations in float32."""
    inputs = draw(cell, rng)
    large = inputs._replace(zx=100 * np.sign(inputs.zx), zr=0 * inputs.zr).astype(np.float32)
    with np.errstate(all="ignore"):
        states, _ = cell.forward(np, large.zx, large.zr, tuple(large.states), tuple(large.extra))
    names = [name for name, state in zip(cell.states, states, strict=True) if np.isnan(state).any()]
    return [f"warning: {', '.join(names)} is NaN in float32 if pre-activations are 100 or -100"] if names else []


# -- calls of the equations, with checks ---------------------------------------------------------------------
def _called(cell: Cell, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function and return its result; raises CellError if it fails or modifies an argument."""
    arrays = [a for argument in arguments for a in (argument if isinstance(argument, tuple) else (argument,))]
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arrays]
    try:
        with np.errstate(all="ignore"):
            result = function(np, *arguments)
    except Exception as error:
        raise CellError(f"{cell.name}: {what} of the equations fails: {type(error).__name__}: {error}") from error
    for old, new in zip(before, arrays, strict=True):
        if isinstance(old, np.ndarray) and not np.array_equal(old, new, equal_nan=True):
            raise CellError(f"{cell.name}: {what} of the equations modifies an argument in place; make a new array")
    return result


def _forward(cell: Cell, inputs: Inputs) -> tuple[list[np.ndarray], tuple]:
    """Return (the states after the step and the factor of the inner product, if any; the saved arrays)."""
    copy = inputs.astype(inputs.zx.dtype)
    middle = []
    if cell.inner is not None:
        waiting = copy.zr.copy()
        for product in cell.products:
            if product.source == "inner":
                waiting[:, product.columns(copy.zr.shape[1] // len(cell.gates))] = np.nan
        given = (copy.zx, waiting, tuple(copy.states), tuple(copy.extra))
        middle = [_called(cell, "inner.forward", cell.inner.forward, *given)]
    given = (copy.zx, copy.zr, tuple(copy.states), tuple(copy.extra))
    result = _called(cell, "forward", cell.forward, *given)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise CellError(f"{cell.name}: forward of the equations: expected (states, saved), got {_kind(result)}")
    states, saved = result
    if not isinstance(states, tuple | list) or len(states) != len(cell.states):
        raise CellError(f"{cell.name}: forward of the equations: expected a tuple of the states "
                        f"{', '.join(cell.states)}, got {_kind(states)}")  # fmt: skip
    shape = copy.states[0].shape
    for name, array in zip(_outputs(cell), (*states, *middle), strict=True):
        _check_array(cell, f"{_where(name)} of the equations: {_words(name)}", array, shape, inputs.zx.dtype)
    if not isinstance(saved, tuple | list) or len(saved) < len(cell.gates):
        raise CellError(f"{cell.name}: forward of the equations: expected saved to begin with the {len(cell.gates)} "
                        f"activated gates, got {_kind(saved)}")  # fmt: skip
    for gate, array in zip(cell.gates, saved, strict=False):
        _check_array(cell, f"forward of the equations: saved[gate {gate}]", array, shape, inputs.zx.dtype)
    return [*states, *middle], tuple(saved)


def _backward(cell: Cell, inputs: Inputs, given: list[np.ndarray], spoil_zr: bool = False) -> list:
    """[dzx, dzr, *dstates_prev, *dextra] from the gradients of the outputs; None stands for no gradient."""
    copy = inputs.astype(inputs.zx.dtype)
    with np.errstate(all="ignore"):
        _, saved = cell.forward(np, copy.zx, copy.zr, tuple(copy.states), tuple(copy.extra))
    if spoil_zr:
        copy.zr[...] = np.nan
    extra, states = tuple(copy.extra), tuple(given[: len(cell.states)])
    result = _called(cell, "backward", cell.backward, states, tuple(saved), extra)
    if not isinstance(result, tuple | list) or len(result) != 4:
        raise CellError(f"{cell.name}: backward of the equations: expected (dzx, dzr, dstates_prev, dextra), "
                        f"got {_kind(result)}")  # fmt: skip
    dzx, dzr, dstates, dextra = result
    for name, list_, want in (("dstates_prev", dstates, len(states)), ("dextra", dextra, len(extra))):
        if not isinstance(list_, tuple | list) or len(list_) != want:
            raise CellError(
                f"{cell.name}: backward of the equations: {name}: expected a tuple of {want}, got {_kind(list_)}"
            )
    if (dstates[0] is None) == cell.direct:
        words = "the gradient of h_prev outside its product" if cell.direct else "None, because the cell is not direct"
        raise CellError(
            f"{cell.name}: backward of the equations: dstates_prev[h]: expected {words}, got {_kind(dstates[0])}"
        )
    if cell.inner is not None:
        dzx, dzr, dstates = _called(cell, "inner.backward", cell.inner.backward, given[-1], dzx, dzr, tuple(dstates),
                                    tuple(saved), extra)  # fmt: skip
    shapes = [inputs.zx.shape] * 2 + [s.shape for s in states] + [(len(inputs.zx), e.size) for e in extra]
    gradients = [dzx, dzr if cell.split else None, *dstates, *dextra]
    for name, array, shape in zip(_gradients(cell), gradients, shapes, strict=True):
        if array is not None or name == "dzx" or name not in ("dzr", "dstates_prev[h]"):
            _check_array(cell, f"backward of the equations: {name}", array, shape, inputs.zx.dtype)
    return gradients


def _check_array(cell: Cell, what: str, array: Any, shape: tuple, dtype: Any) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise CellError(f"{cell.name}: {what}: expected an array {shape}, got {_kind(array)}")
    if array.dtype != dtype:
        raise CellError(f"{cell.name}: {what}: expected {dtype}, the type of the inputs, got {array.dtype}; "
                        "write constants as Python numbers, not NumPy's")  # fmt: skip
    if not np.isfinite(array).all():
        inner = " (columns of zr that wait for the inner product are NaN)" if "inner" in what else ""
        raise CellError(f"{cell.name}: {what}: expected finite numbers, got NaN or infinity{inner}")


def _check_memory(cell: Cell, inputs: Inputs, given: list[np.ndarray]) -> None:
    """Check that no saved array is a view of zr, because the next step overwrites zr."""
    with np.errstate(all="ignore"):
        try:
            pairs = zip(_backward(cell, inputs, given), _backward(cell, inputs, given, spoil_zr=True), strict=True)
            same = all(a is None or np.array_equal(a, b) for a, b in pairs)
        except CellError:
            same = False
    if not same:
        raise CellError(f"{cell.name}: forward of the equations: it saves a view of zr, which the next step "
                        "overwrites; save a copy")  # fmt: skip


# -- the derivative ------------------------------------------------------------------------------------------
def _slopes(cell: Cell, inputs: Inputs) -> list[np.ndarray]:
    """The slope of every output by central differences: for each input array, (*its shape, outputs, B, H)."""

    def moved(number: int, k: tuple, step: float) -> np.ndarray:
        other = inputs.astype(np.float64)
        other.arrays()[number][k] += step
        return np.stack(_forward(cell, other)[0])

    slopes = []
    for number, array in enumerate(inputs.arrays()):
        slope = np.empty((*array.shape, len(_outputs(cell)), B, H))
        for k in np.ndindex(array.shape):
            near = moved(number, k, STEP) - moved(number, k, -STEP)
            far = moved(number, k, 2 * STEP) - moved(number, k, -2 * STEP)
            slope[k] = (8 * near - far) / (12 * STEP)
        slopes.append(slope)
    return slopes


def _check_flags(cell: Cell, slopes: list[np.ndarray]) -> None:
    """Check that the fields split and direct of the Cell agree with the equations."""
    zx, zr, h = slopes[:3]
    apart = np.abs(zx - zr).reshape(B, len(cell.gates), -1).max(axis=(0, 2))
    if not cell.split and apart.max() > TOLERANCE * max(1.0, np.abs(zx).max()):
        gate = cell.gates[int(apart.argmax())]
        raise CellError(f"{cell.name}: split: forward treats zx and zr of gate {gate} differently; set split=True in "
                        "the Cell, and return the gradients of both")  # fmt: skip
    if not cell.direct and np.abs(h).max() > TOLERANCE:
        raise CellError(f"{cell.name}: direct: forward uses h_prev outside its product; set direct=True in the Cell, "
                        "and return its gradient in dstates_prev[0]")  # fmt: skip


def _check_gradients(
    cell: Cell, gradients: list, slopes: list[np.ndarray], number: int, d: np.ndarray, output: str
) -> None:
    for name, got, slope in zip(_gradients(cell), gradients, slopes, strict=True):
        if got is None:
            continue
        each = np.einsum("...bh,bh->...b", slope[..., number, :, :], d)  # (*shape, B): for each sequence
        want = np.moveaxis(each, -1, 0) if name.startswith("dextra") else each.sum(-1)
        error = np.abs(got - want)
        if not error.max() <= TOLERANCE * max(1.0, np.abs(want).max()):
            at = np.unravel_index(int(error.argmax()), error.shape)
            part = _part(cell, name, int(at[-1]) // H)
            raise CellError(
                f"{cell.name}: {_where(output, 'backward')} of the equations: {part} is not the derivative of forward "
                f"({_words(output)}): expected {want[at]:.6g} by central differences, got {got[at]:.6g}"
            )


# -- words ---------------------------------------------------------------------------------------------------
def _outputs(cell: Cell) -> list[str]:
    return [*cell.states, "inner product"] if cell.inner is not None else list(cell.states)


def _gradients(cell: Cell) -> list[str]:
    vectors = [form.name for form in cell.extra if not form.matrix]
    return ["dzx", "dzr", *(f"dstates_prev[{s}]" for s in cell.states), *(f"dextra[{v}]" for v in vectors)]


def _part(cell: Cell, name: str, block: int) -> str:
    """The name of a part of a gradient: its gate, or its block of H."""
    if name in ("dzx", "dzr"):
        return f"{name}[gate {cell.gates[block]}]"
    return f"{name}, block {block}," if name.startswith("dextra") and block else name


def _where(output: str, way: str = "forward") -> str:
    return f"inner.{way}" if output == "inner product" else way


def _words(output: str) -> str:
    return "factor of the inner product" if output == "inner product" else f"state {output}"


def _kind(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return f"an array {x.shape}"
    return f"a {type(x).__name__} of {len(x)}" if isinstance(x, tuple | list) else f"{x!r}"[:40]
