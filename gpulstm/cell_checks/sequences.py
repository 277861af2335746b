"""Random sequences of a cell with all options, and its gradients against central differences."""

from typing import Any

import numpy as np

from gpulstm import functional
from gpulstm.backend import CPU, Backend
from gpulstm.cell_checks.equations import draw
from gpulstm.cells import Cell
from gpulstm.errors import CellError
from gpulstm.functional.sequence import Noise

COUNT = 12  # sequences
STEP = 1e-6  # of the differences, which are of fourth order
TOLERANCE = 1e-6  # relative to the sum of a gradient's magnitudes


class Drawn:
    """One random sequence: sizes, arguments, options and the gradients of its outputs, all in float64."""

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        self.cell, self.rng, G = cell, rng, len(cell.gates)
        T, B, D = (int(rng.integers(1, top)) for top in (6, 4, 5))
        H = int(rng.integers(2, 20))  # more than a vector register holds
        P = int(rng.integers(1, H)) if cell.projects and self.maybe(4) else 0
        make, one = rng.standard_normal, draw(cell, rng, H, B)
        self.arrays: dict[str, Any] = {"x": make((T, B, D))}
        for k, (name, state) in enumerate(zip(cell.states, one.states, strict=True)):
            first = state if k else state[:, : P or H]
            self.arrays[f"{name}0"] = first if self.maybe(2) else None
        self.arrays |= {"w_ih": make((G * H, D)), "w_hh": make((G * H, P or H)) / np.sqrt(H)}
        self.arrays |= {b: make(G * H) if cell.biases and self.maybe(1.5) else None for b in ("b_ih", "b_hh")}
        self.arrays["w_hr"] = make((P, H)) if P else None
        vectors = iter(one.extra)
        for form in cell.extra:
            self.arrays[form.name] = make((form.blocks * H, H)) / np.sqrt(H) if form.matrix else next(vectors)
        self.modes = self._modes(T, B)
        self.given = [make((T, B, P or H)), make((B, P or H)), *(make((B, H)) for _ in cell.states[1:])]

    def maybe(self, one_in: float) -> bool:
        return bool(self.rng.random() < 1 / one_in)

    def _noise(self) -> Noise:
        return Noise(float(self.rng.choice([0.25, 0.5])), int(self.rng.integers(2**63)) if self.maybe(1.5) else None)

    def _modes(self, T: int, B: int) -> dict[str, Any]:
        modes: dict[str, Any] = {"reverse": self.maybe(3), "recompute": self.maybe(4)}
        if self.maybe(3):
            modes["lengths"] = self.rng.integers(0, T + 1, B)
        elif self.maybe(3):
            modes["mask"] = self.rng.random((T, B)) < 0.7
        if self.maybe(3):
            modes["reset"] = self.rng.random((T, B)) < 0.3
        if self.maybe(2):
            modes["zoneout"] = (self._noise(), self._noise() if len(self.cell.states) > 1 else None)
        if self.maybe(3):
            modes["recurrent_dropout"] = self._noise()
        return modes

    def __str__(self) -> str:
        T, B, D = self.arrays["x"].shape
        modes = [name for name, mode in self.modes.items() if mode is not None and mode is not False]
        projected = ["projection"] if self.arrays["w_hr"] is not None else []
        return f"a sequence of T={T} B={B} D={D} H={len(self.arrays['w_ih']) // len(self.cell.gates)}" + (
            f" with {', '.join(modes + projected)}" if modes or projected else ""
        )

    def run(self, backend: Backend, path: str, dtype: Any = np.float64) -> dict[str, np.ndarray]:
        """All outputs, and the gradients of the arguments, by name and on the host."""
        outputs, gradients = run(self.cell, self.arrays, self.modes, self.given, backend, path, dtype)
        return outputs | gradients

    def loss(self, changed: dict[str, np.ndarray]) -> float:
        """The sum of the outputs, each multiplied by its gradient, with some arguments ``changed``."""
        with np.errstate(all="ignore"):
            outputs, _ = functional.recurrent(
                *(self.arrays | changed).values(), cell=self.cell, path="reference", **self.modes
            )
        return sum(float((output * d).sum()) for output, d in zip(outputs, self.given, strict=True))


def run(
    cell: Cell, arrays: dict[str, Any], modes: dict[str, Any], given: list, backend: Backend, path: str, dtype: Any
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Compute (outputs, gradients) by name, on the host, from arguments on the host; arguments of None have none."""

    def there(array: Any) -> Any:
        return None if array is None else backend.asarray(array.astype(dtype))

    with backend, np.errstate(all="ignore"):
        outputs, pullback = functional.recurrent(*map(there, arrays.values()), cell=cell, path=path, **modes)
        gradients = pullback(*map(there, given))
    names = ["y", *(f"{state}_n" for state in cell.states)]
    return (
        {name: backend.to_numpy(output) for name, output in zip(names, outputs, strict=True)},
        {n: backend.to_numpy(g) for n, g in zip(arrays, gradients, strict=True) if g is not None},
    )


def check_derivatives(cell: Cell, rng: np.random.Generator) -> None:
    """Compare the gradients of random sequences with differences along a random direction for each argument."""
    for _ in range(COUNT):
        drawn = Drawn(cell, rng)
        _, gradients = run(cell, drawn.arrays, drawn.modes, drawn.given, CPU, "reference", np.float64)
        for name, got in gradients.items():
            along, value = rng.standard_normal(got.shape), drawn.arrays[name]
            near, far = (
                drawn.loss({name: value + step * along}) - drawn.loss({name: value - step * along})
                for step in (STEP, 2 * STEP)
            )
            want, exact = (8 * near - far) / (12 * STEP), float((got * along).sum())
            if not abs(want - exact) <= TOLERANCE * max(1.0, float(np.abs(got).sum())):
                raise CellError(
                    f"{cell.name}: the equations over {drawn}: the gradient of {name} is not the derivative: expected "
                    f"{want:.6g} by central differences along a random direction, got {exact:.6g}"
                )
