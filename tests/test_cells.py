"""Every cell in every mode: random configurations of the reference against first principles and central
differences, and of every path on every device against the reference."""

import copy
import importlib

import numpy as np
import pytest

from gpulstm import as_dtype, functional
from gpulstm.backend import CPU
from gpulstm.functional.sequence import Noise
from tests.cases import CELL_CASES, CellCase, fast_path, paths
from tests.first_principles import sequence
from tests.tolerances import FACTOR, RELATIVE, ULPS, assert_close

pytestmark = pytest.mark.slow  # a hundred random configurations of each cell

COUNT = 100  # configurations of each cell
EPS = 1e-6  # of the central differences


class Configuration:
    """Random sizes, arguments and modes for one cell, from a seed."""

    def __init__(self, case: CellCase, number: int) -> None:
        self.rng = rng = np.random.default_rng([number, *case.name.encode()])
        self.case, self.cell = case, case.cell
        G = len(self.cell.gates)
        T, B, D, H = self.drawn_sizes(number)
        P = int(rng.integers(1, H)) if self.cell.projects and H > 1 and self.maybe(4) else 0
        make = rng.standard_normal
        self.x = make((T, B, D))
        self.states = [make((B, P or H)) if self.maybe(2) else None]
        self.states += [make((B, H)) if self.maybe(2) else None for _ in self.cell.states[1:]]
        if "n" in self.cell.states and self.states[2] is not None:  # a sum of positive weights
            self.states[2] = np.abs(self.states[2]) + 0.5
        self.weights = {"w_ih": make((G * H, D)), "w_hh": make((G * H, P or H)) / np.sqrt(H)}
        self.weights |= {b: make(G * H) if self.cell.biases and self.maybe(1.5) else None for b in ("b_ih", "b_hh")}
        self.weights["w_hr"] = make((P, H)) if P else None
        for extra in self.cell.extra:
            rows = extra.blocks * H
            self.weights[extra.name] = make((rows, H)) / np.sqrt(H) if extra.matrix else make(rows)
        self.modes = self._modes(T, B)
        self.cotangents = [make((T, B, P or H)), make((B, P or H)), *(make((B, H)) for _ in self.cell.states[1:])]
        keep = rng.random(len(self.cotangents)) < 0.7
        keep[int(rng.integers(len(keep)))] = True
        self.cotangents = [d if k else None for d, k in zip(self.cotangents, keep, strict=True)]
        self.recompute = self.maybe(4)

    def drawn_sizes(self, number: int) -> tuple[int, int, int, int]:
        T, B = (int(self.rng.integers(1, top)) for top in (7, 5))
        D, H = (int(self.rng.integers(self.case.smallest, self.case.smallest + count)) for count in (3, 5))
        return T, 0 if number == 7 else B, D, H

    def changed(self, function) -> "Configuration":
        """A copy with all its arrays changed."""
        other = copy.copy(self)
        other.x, other.states = function(self.x), [None if s is None else function(s) for s in self.states]
        other.weights = {name: None if w is None else function(w) for name, w in self.weights.items()}
        other.cotangents = [None if d is None else function(d) for d in self.cotangents]
        return other

    def maybe(self, one_in: float) -> bool:
        return bool(self.rng.random() < 1 / one_in)

    def noise(self) -> Noise | None:
        rate = float(self.rng.choice([0.25, 0.5, 0.9]))
        return Noise(rate, int(self.rng.integers(2**63)) if self.maybe(1.5) else None)

    def _modes(self, T: int, B: int) -> dict:
        modes: dict = {"reverse": self.maybe(3)}
        if self.maybe(3):
            modes["lengths"] = self.rng.integers(0, T + 1, B)
        elif self.maybe(3):
            modes["mask"] = self.rng.random((T, B)) < 0.7
        if self.maybe(3):
            modes["reset"] = self.rng.random((T, B)) < 0.3
        c = self.noise() if len(self.cell.states) > 1 and self.maybe(2) else None
        if self.maybe(2):
            modes["zoneout"] = (self.noise() if self.maybe(1.5) else None, c)
        if self.maybe(3):
            modes["recurrent_dropout"] = self.noise()
        return modes

    def run(self, backend, path, dtype=np.float64):
        """{name: array on the host} of all outputs and gradients."""

        def there(array):
            return None if array is None else backend.asarray(array.astype(dtype))

        arguments = [*self.states, *self.weights.values()]
        with backend:
            outputs, pullback = functional.recurrent(
                there(self.x), *map(there, arguments), cell=self.cell, path=path, recompute=self.recompute, **self.modes
            )
            gradients = pullback(*map(there, self.cotangents))
        names = ["y", *self.cell.states, "dx", *(f"d{s}0" for s in self.cell.states), *(f"d{w}" for w in self.weights)]
        named = zip(names, (*outputs, *gradients), strict=True)
        return {name: None if a is None else backend.to_numpy(a) for name, a in named}

    def principled(self, x, states, weights):
        """(y, *states) from first principles."""
        step = importlib.import_module(f"tests.first_principles.{self.case.file}").step
        modes = dict(self.modes)
        alive, lengths = modes.pop("mask", None), modes.pop("lengths", None)
        if lengths is not None:
            alive = np.arange(len(x))[:, None] < lengths
        weights = {**weights, "gates": len(self.cell.gates)}
        return sequence.run(
            step, x, states, weights, alive=alive, names=self.cell.states, **modes, **self.case.options
        )  # fmt: skip


CASES = [pytest.param(case, id=case.name) for case in CELL_CASES]


@pytest.mark.parametrize("case", CASES)
def test_the_reference_is_first_principles_and_its_gradients_central_differences(case):
    for number in range(COUNT):
        configuration = Configuration(case, number)
        got = configuration.run(CPU, "reference")
        given = [configuration.x, *configuration.states, *configuration.weights.values()]
        n = len(configuration.states)

        def principled(arrays, configuration=configuration, n=n):
            weights = dict(zip(configuration.weights, arrays[n + 1 :], strict=True))
            return configuration.principled(arrays[0], arrays[1 : n + 1], weights)

        def loss(arrays, configuration=configuration, principled=principled):
            pairs = zip(principled(arrays), configuration.cotangents, strict=True)
            return sum((output * d).sum() for output, d in pairs if d is not None)

        for name, want in zip(list(got)[: n + 1], principled(given), strict=True):
            assert_close(got[name], want, name=f"{number}: {name}")
        for k, (array, name) in enumerate(zip(given, list(got)[n + 1 :], strict=True)):
            if array is None:
                assert got[name] is None, f"{number}: {name}"
                continue
            direction = configuration.rng.standard_normal(array.shape)

            def along(step, k=k, array=array, direction=direction, given=given, loss=loss):
                return loss([*given[:k], array + step * direction, *given[k + 1 :]])

            # Central differences of fourth order: layer norms bend sharply.
            numeric = (8 * (along(EPS) - along(-EPS)) - (along(2 * EPS) - along(-2 * EPS))) / (12 * EPS)
            exact = (got[name] * direction).sum()
            scale = max(1.0, np.abs(got[name]).sum())
            assert abs(exact - numeric) <= 1e-7 * scale, f"{number}: {name}: {exact} but differences give {numeric}"


@pytest.mark.parametrize("case", CASES)
def test_every_path_is_the_reference(device, case):
    for number in range(COUNT):
        configuration = Configuration(case, number)
        want = configuration.run(CPU, "reference")
        for path in paths(device) if number % 10 == 0 else [fast_path(device)]:
            for name, got in configuration.run(device, path).items():
                if want[name] is None:
                    assert got is None, f"{number}: {path}: {name}"
                else:
                    # Not below 1e-3: where a tanh saturates, 1 - tanh^2 has lost the digits of a small gradient.
                    error, scale = np.abs(got - want[name]).max(initial=0), np.abs(want[name]).max(initial=1e-3)
                    assert error <= RELATIVE["float64"] * scale, f"{number}: {path}: {name}: {error} of {scale}"


def assert_mostly(errors: list[tuple[str, float, float]], worst: float) -> None:
    """(what, error, allowed): nine of ten errors within what is allowed, and every one within ``worst`` times that.

    What is allowed is an estimate from a few roundings that happened; in an array of a few elements they may have
    cancelled.
    """
    over = sorted(((error / allowed, what) for what, error, allowed in errors if error > allowed), reverse=True)
    assert len(over) <= len(errors) / 10 and (not over or over[0][0] <= worst), (
        f"{len(over)} of {len(errors)}: {over[:5]}"
    )


@pytest.mark.parametrize("case", CASES)
def test_float32_error_is_within_the_ratio(device, case):
    errors = []
    for number in range(0, COUNT, 2):
        configuration = Configuration(case, number)
        exact, plain = configuration.run(CPU, "reference"), configuration.run(CPU, "reference", np.float32)
        for name, got in configuration.run(device, "auto", np.float32).items():
            if got is not None and got.size:
                assert got.dtype == np.float32
                error, readable = (np.abs(a - exact[name]).max() for a in (got, plain[name]))
                allowed = FACTOR * readable + ULPS["float32"] * 2.0**-23 * np.abs(exact[name]).max()
                errors.append((f"{number}: {name}", error, allowed + 1e-30))
    assert_mostly(errors, 40 if case.corners else 4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_half_types_are_stored_as_such_and_computed_wider(device, case, dtype):
    dtype = as_dtype(dtype)
    unit, errors = 2.0**-10 if dtype.name == "float16" else 2.0**-7, []
    for number in range(0, COUNT, 5):
        configuration = Configuration(case, number).changed(lambda a: a.astype(dtype).astype(np.float64))
        want = configuration.run(CPU, "reference")  # for the numbers as they are stored
        # What one rounding of everything given would change of it: the measure of how hard the case is.
        shaken = [
            configuration.changed(lambda a: a * (1 + unit * configuration.rng.uniform(-1, 1, a.shape)))  # noqa: B023
            for _ in range(3)
        ]
        shaken = [other.run(CPU, "reference") for other in shaken]
        for name, got in configuration.run(device, "auto", dtype).items():
            if got is not None and got.size:
                assert got.dtype == dtype, name
                error = np.abs(got.astype(np.float64) - want[name]).max()
                change = max(np.abs(other[name] - want[name]).max() for other in shaken)
                allowed = 4 * (change + unit * np.abs(want[name]).max())  # a step rounds about four times
                errors.append((f"{number}: {name}", error, allowed + 1e-30))
    assert_mostly(errors, 40 if case.corners else 4)


@pytest.mark.parametrize("case", CASES)
def test_the_trace_has_every_gate_and_state(device, case):
    configuration = Configuration(case, 3)
    cell = configuration.cell
    arguments = [
        None if a is None else device.asarray(a) for a in (*configuration.states, *configuration.weights.values())
    ]
    x = device.asarray(configuration.x)
    with device:
        traced = functional.trace(x, *arguments, cell=cell, **configuration.modes)
        (_, *last), _ = functional.recurrent(x, *arguments, cell=cell, path="reference", **configuration.modes)
    assert list(traced) == [*cell.gates, *cell.states]
    assert all(values.shape[:2] == x.shape[:2] for values in traced.values())
    end = 0 if configuration.modes["reverse"] else -1
    for name, state in zip(cell.states, last, strict=True):
        assert_close(device.to_numpy(traced[name])[end], device.to_numpy(state), name=name)
