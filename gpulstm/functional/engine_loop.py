"""The path for the processor: one call of the compiled engine (kernels/host) computes a whole sequence."""

import ctypes
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm import engine, pool, threads
from gpulstm.backend import CPU, Array
from gpulstm.cells import Cell, Kernels
from gpulstm.functional.products import Weights, vectors_by_name
from gpulstm.functional.sequence import Modes, Sequence

_STATES = _PRODUCTS = 8  # kernels/host/sequence.h
_INNER = -1
_Nothing = ctypes.c_char * 0
_SIZES, _FORWARD, _BACKWARD, _NUMBERS = range(4)


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_longlong) for name in ("source", "first", "gates", "dropped")),
        ("weight", ctypes.c_void_p),
        ("dweight", ctypes.c_void_p),
    )


def _longs(*names: str) -> tuple:
    return tuple((name, ctypes.c_longlong) for name in names)


def _pointers(*names: str) -> tuple:
    return tuple((name, ctypes.c_void_p) for name in names)


class _Args(ctypes.Structure):
    """struct Args of kernels/host/sequence.h, where each field is described."""

    _fields_ = (
        *_longs("T", "B", "D", "H", "P", "threads", "reverse", "training", "products"),
        *_pointers("options", "x", "w_ih", "b_ih", "b_hh", "w_hr", "vectors"),
        ("first", ctypes.c_void_p * _STATES),
        *_pointers("alive", "clear", "keep_h", "keep_states"),
        *_longs("keep_h_step", "keep_states_step"),
        *_pointers("dropped"),
        ("product", _Product * _PRODUCTS),
        *_pointers("y"),
        ("last", ctypes.c_void_p * _STATES),
        *_pointers("saved", "scratch"),
        *_longs("saved_bytes", "forward_bytes", "backward_bytes", "used_up"),
        *_pointers("dy"),
        ("dlast", ctypes.c_void_p * _STATES),
        *_pointers("dx", "dw_ih", "db_ih", "db_hh", "dw_hr", "dvectors"),
        ("dfirst", ctypes.c_void_p * _STATES),
    )


class _Plan:
    """What all calls of the engine for one cell share, whatever the sequence."""

    def __init__(self, cell: Cell, dtype: Any) -> None:
        kernel = cell.kernel
        assert kernel is not None  # choose() checked
        self.call = _entry(kernel, dtype)
        self.name, self.options = kernel.struct.encode(), (ctypes.c_double * len(kernel.options))(*kernel.options)
        self.options_at = ctypes.addressof(self.options)
        self.products = (_Product * _PRODUCTS)()
        for product, form in zip(self.products, cell.products, strict=False):
            product.source = _INNER if form.source == "inner" else cell.states.index(form.source)
            product.first, product.gates = form.gates.start, form.gates.stop - form.gates.start
            product.dropped = form.source == "inner" and form.weight == "w_hh"


_plan = functools.lru_cache(maxsize=64)(_Plan)


class EngineLoop:
    """One sequence, forward and backward; the same interface as Loop.

    Without ``keep`` the forward pass keeps nothing for ``pullback``, which then runs it again. A second call of
    ``pullback`` also runs it again if the first one has overwritten what was kept.
    """

    def __init__(self, seq: Sequence, input_gradient: bool, keep: bool) -> None:
        self.seq, self.input_gradient, self.keep = seq, input_gradient, keep

    def run(self, x: Array, states: list, weights: Weights) -> tuple:
        """(y, *states_n) of x (T, B, D) from the initial states, None for zeros."""
        self.begin(x.shape[2], weights)
        self.states, self.args.x = states, self._address(x)
        _set(self.args.first, map(self._address, states))
        return self._forward(self.keep)

    def begin(self, D: int, weights: Weights) -> None:
        """Set all arguments of the engine but x and the initial states."""
        seq, cell = self.seq, self.seq.cell
        plan = self.plan = _plan(cell, seq.dtype)
        self.weights = weights
        self.held: list[Array] = []
        args = self.args = _Args(options=plan.options_at, product=plan.products)
        args.T, args.B, args.D, args.H, args.P = seq.T, seq.B, D, seq.H, seq.P
        args.threads, args.reverse, args.products = threads.get_num_threads(), seq.reverse, len(cell.products)
        vectors = weights.vectors(cell, np, seq.dtype) if cell.extra else None
        for name, array in (
            ("w_ih", weights.w_ih), ("b_ih", weights.b_ih), ("b_hh", weights.b_hh), ("w_hr", weights.w_hr),
            ("vectors", vectors), ("alive", seq.alive), ("clear", seq.clear), ("dropped", seq.dropped),
            ("keep_h", seq.shares_h), ("keep_states", seq.shares_c),
        ):  # fmt: skip
            if array is not None:
                setattr(args, name, self._address(array))
        args.keep_h_step, args.keep_states_step = _step(seq.shares_h), _step(seq.shares_c)
        for product, form in zip(args.product, cell.products, strict=False):
            product.weight = self._address(weights.of(cell, form.weight)[form.weight_rows(seq.H)])

    def _forward(self, training: bool) -> tuple:
        seq, args = self.seq, self.args
        args.training, args.dx = training, int(self.input_gradient) or None  # the sizes depend on whether dx is wanted
        self._call(_SIZES)
        self.saved, self.fresh = pool.empty((args.saved_bytes,), np.uint8), training
        scratch = pool.empty((args.forward_bytes,), np.uint8)
        self.y = pool.empty((seq.T, seq.B, seq.P), seq.dtype)
        sizes = [seq.P, *[seq.H] * (len(seq.cell.states) - 1)]
        last = [np.empty((seq.B, size), seq.dtype) for size in sizes]
        args.saved, args.scratch, args.y = _at(self.saved), _at(scratch), _at(self.y)
        _set(args.last, map(_at, last))
        self._call(_FORWARD)
        return self.y, *last

    def pullback(self, dy: Array | None, *dstates: Array | None) -> tuple:
        """The gradients of x, the initial states and the weights, given those of y and the last states."""
        seq, cell, args, weights = self.seq, self.seq.cell, self.args, self.weights
        if not self.fresh:
            y = self.y
            self._forward(training=True)
            y[...] = self.y  # the caller's array: its numbers stay the same
        held = len(self.held)
        args.dy = self._address(dy)
        _set(args.dlast, map(self._address, dstates))
        dx = pool.empty((seq.T, seq.B, args.D), seq.dtype) if self.input_gradient else None
        dw_ih, db_ih, db_hh, dw_hr = (
            None if w is None else pool.empty(w.shape, seq.dtype)
            for w in (weights.w_ih, weights.b_ih, weights.b_hh, weights.w_hr)
        )
        dvectors = np.empty(sum(form.blocks for form in cell.extra if not form.matrix) * seq.H, seq.dtype)
        dfirst = [None if state is None else np.empty(state.shape, seq.dtype) for state in self.states]
        by_name: dict[str, Any] = {}
        for product, form in zip(args.product, cell.products, strict=False):
            if form.weight not in by_name:
                weight = weights.of(cell, form.weight)
                whole = _rows_with_products(cell, form.weight) * seq.H == len(weight)
                by_name[form.weight] = (pool.empty if whole else seq.backend.zeros)(weight.shape, seq.dtype)
            product.dweight = _at(by_name[form.weight][form.weight_rows(seq.H)])
        scratch = pool.empty((args.backward_bytes,), np.uint8)
        args.scratch, args.dx, args.dw_ih, args.dw_hr = _at(scratch), _at(dx), _at(dw_ih), _at(dw_hr)
        args.db_ih, args.db_hh, args.dvectors = _at(db_ih), _at(db_hh), _at(dvectors)
        _set(args.dfirst, map(_at, dfirst))
        self._call(_BACKWARD)
        self.fresh = not args.used_up
        del self.held[held:]
        by_name |= vectors_by_name(cell, dvectors, seq.H)
        extra = (by_name[form.name] for form in cell.extra)
        return dx, *dfirst, dw_ih, by_name["w_hh"], db_ih, db_hh, dw_hr, *extra

    def _call(self, what: int) -> None:
        failed = self.plan.call(self.plan.name, what, ctypes.byref(self.args))
        assert not failed, f"the engine has no cell {self.plan.name.decode()}"

    def _address(self, array: Any) -> int | None:
        """The address of a contiguous array, copied if needed; ``held`` keeps it alive."""
        if array is None:
            return None
        if not array.flags.c_contiguous or (array.dtype != self.seq.dtype and array.dtype != bool):
            array = np.ascontiguousarray(array, dtype=bool if array.dtype == bool else self.seq.dtype)
        self.held.append(array)
        return _at(array)


class EngineStep:
    """One step without gradients, to be called many times with the same weights and sizes.

    It keeps the engine's arguments and buffers, so only one thread may call it at a time. The weights (contiguous
    arrays, no vectors among them) are read in place.
    """

    def __init__(self, cell: Cell, dtype: Any, B: int, weights: Weights) -> None:
        D, H = weights.w_ih.shape[1], weights.w_hh.shape[1]
        self.loop = EngineLoop(Sequence(CPU, cell, dtype, 1, B, H, H, False, Modes()), False, keep=False)
        self.loop.begin(D, weights)
        self.loop._call(_SIZES)
        args = self.args = self.loop.args
        self.memory = [np.empty(size, np.uint8) for size in (args.saved_bytes, args.forward_bytes)]
        args.saved, args.scratch = map(_at, self.memory)
        self.dtype, self.shape, self.states = dtype, (B, H), len(cell.states)

    def __call__(self, x: Array, states: list) -> list[Array]:
        """The states after a step from contiguous x (B, D) and states (B, H), None for zeros."""
        args, after = self.args, [np.empty(self.shape, self.dtype) for _ in range(self.states)]
        args.x = _at(x)
        _set(args.first, map(_at, states))
        _set(args.last, map(_at, after))
        args.y = args.last[0]  # y of a single step is h
        self.loop._call(_FORWARD)
        return after


def _at(array: Any) -> int | None:
    """The address of a contiguous array."""
    if array is None:
        return None
    if array.flags.writeable:
        return ctypes.addressof(_Nothing.from_buffer(array))  # the fastest way
    return array.__array_interface__["data"][0]


def _set(places: Any, addresses: Iterable[int | None]) -> None:
    for k, address in enumerate(addresses):
        places[k] = address


def _rows_with_products(cell: Cell, weight: str) -> int:
    """The number of the weight's blocks of rows that have a product; the gradients of the others are zero."""
    rows = [form.rows or form.gates for form in cell.products if form.weight == weight]
    return sum(part.stop - part.start for part in rows)


def _step(shares: Any) -> int:
    """Elements from the shares of one step to those of the next; 0 if all steps share one array."""
    return 0 if shares is None or len(shares) == 1 else shares[0].size


def _entry(kernel: Kernels, dtype: Any) -> Any:
    return engine.entry(dtype, engine.own_cell(kernel.file, kernel.struct, kernel.stamp) if kernel.own else None)


def why_not(cell: Cell) -> str:
    """Why the engine cannot run the cell, or ""; the scan of the minimal cells has code of its own."""
    if why := engine.why_none():
        return why
    if not cell.recurrent:
        return ""
    if cell.kernel is None:
        return f"the {cell.name} has no C++ code for the engine"
    return why_no_text(cell) or too_much(cell)


def why_no_text(cell: Cell) -> str:
    """Why the cell's C++ cannot be used by an engine that is there, or ""; a user's own file is compiled."""
    kernel = cell.kernel
    assert kernel is not None
    if kernel.own and (why := engine.why_no_own(kernel.file, kernel.struct, kernel.stamp)):
        return why
    return _difference(cell)


@functools.lru_cache(maxsize=64)
def _difference(cell: Cell) -> str:
    """What the struct and the row in Python disagree on, or ""; the engine would write outside its arrays."""
    kernel, row = cell.kernel, cell.row
    assert kernel is not None
    numbers = (ctypes.c_longlong * len(row))()
    if _entry(kernel, np.float64)(kernel.struct.encode(), _NUMBERS, ctypes.byref(numbers)):
        return (
            f"kernel: expected a cell of the library or the path of a .cuh file, got {kernel.struct} in {kernel.file!r}"
        )
    for (name, want), got in zip(row.items(), numbers, strict=True):
        if got != want:
            return f"{Path(kernel.file).name}: {name}: the struct {kernel.struct} has {got}, the row in Python {want}"
    return ""


@functools.lru_cache(maxsize=64)
def too_much(cell: Cell) -> str:
    """Why the cell is too large for the engine, or ""."""
    if len(cell.states) > _STATES or len(cell.products) > _PRODUCTS or len(cell.gates) > 30:
        return f"the engine takes cells of up to {_STATES} states, {_PRODUCTS} products and 30 gates"
    seen: set[tuple[str, int]] = set()
    for form in cell.products:
        rows = form.rows or form.gates
        now = {(form.weight, row) for row in range(rows.start, rows.stop)}
        if seen & now:
            return f"two products of the {cell.name} share rows of {form.weight}"
        seen |= now
    return ""
