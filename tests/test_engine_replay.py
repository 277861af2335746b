"""The processor's engine as a program of their own (tests/drivers/replay.cpp), beside the reference: under
sanitizers, with vectors as wide as AVX-512's on processors that have none, with several threads, and on ARM."""

import functools

import numpy as np
import pytest

from gpulstm.backend import CPU
from gpulstm.building import ISA_FLAGS
from tests.cases import CELL_CASES
from tests.conftest import NoDevice
from tests.replay import Build, recorded, replayed
from tests.test_cells import assert_mostly
from tests.test_engine import Sized, allowed_error, assert_same_bits
from tests.tolerances import FACTOR, ULPS

pytestmark = pytest.mark.slow
# null and alignment: AddressSanitizer and the tests' other builds see the first, and loads want no alignment.
ADDRESS = ("-g1", "-fsanitize=address,undefined", "-fno-sanitize=null,alignment", "-fno-sanitize-recover=all")
AVX2, WIDE = ISA_FLAGS["avx2"], (*ISA_FLAGS["avx2"], "-DGPULSTM_VECTOR_BYTES=64")
ARM = {"compiler": "aarch64-linux-gnu-g++", "emulators": ("qemu-aarch64", "qemu-aarch64-static")}
WAYS = ("Lstm", "GruBefore", "PeepholeFull", "LayerNorm")  # a cell for each way in which threads meet
BUILDS = (
    Build("plain", np.float64, ("-O0",), 2, WAYS, 24),  # compiled fast: tests/mutants.py takes it
    Build("address baseline", np.float64, ADDRESS, threads=2),
    Build("address avx2", np.float32, (*ADDRESS, *AVX2), needs="avx2"),
    Build("wide f32", np.float32, WIDE, threads=2, needs="avx2"),
    Build("wide f64", np.float64, WIDE, needs="avx2"),
    Build("thread", np.float64, ("-g1", "-fsanitize=thread"), 2, WAYS, 28),
    Build("arm", np.float32, ("-static",), configurations=16, **ARM),
)
CASES = [
    pytest.param(build, case, id=f"{build.name}-{case.name}")
    for build in BUILDS
    for case in CELL_CASES
    if not build.cells or case.cell.kernel.struct in build.cells
]


class Recorded(Sized):
    """A configuration whose ``recompute`` becomes inference: what is kept for some steps alone is not the engine's."""

    def __init__(self, case, number: int) -> None:
        super().__init__(case, number)
        if self.recompute:
            self.modes["inference"] = True
        self.recompute = False


BY_NAME = {case.name: case for case in CELL_CASES}


@functools.cache
def reference(name: str, number: int, dtype) -> dict:
    return Recorded(BY_NAME[name], number).run(CPU, "reference", dtype)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The command of a build, which is compiled at its first use."""
    return functools.cache(lambda build: build.compile(tmp_path_factory.mktemp("replay")))


def results_of(case, build: Build, command: list[str], threads: int) -> list[dict]:
    """What the driver makes of every configuration."""
    records, results = [], []
    for number in range(build.configurations):
        with recorded() as record:
            results.append(Recorded(case, number).run(CPU, "engine", build.dtype))
        records.append(record)
    replayed(command, threads, records)
    return results


@pytest.mark.parametrize(("build", "case"), CASES)
def test_every_cell_in_every_mode_is_the_reference(compiled, build, case):
    if why := build.why_not():
        raise NoDevice(why)
    command = compiled(build)
    results, errors = results_of(case, build, command, build.threads), []
    for number, got in enumerate(results):
        want, single = reference(case.name, number, np.float64), build.dtype == np.float32
        plain = reference(case.name, number, np.float32) if single else want
        for name, value in want.items():
            if value is None or not value.size:
                assert value is not None or got[name] is None
                continue
            assert np.isfinite(got[name]).all(), f"{number}: {name}"
            error, readable = (np.abs(a[name] - value).max() for a in (got, plain))
            if single:
                allowed = FACTOR * readable + ULPS["float32"] * 2.0**-23 * np.abs(value).max() + 1e-30
                errors.append((f"{number}: {name}", error, allowed))
            else:
                allowed = allowed_error(case, value)
                assert error <= allowed, f"{number}: {name}: {error}, expected at most {allowed}"
    # Norms of rows with next to no variance make much of rounding, whoever rounds.
    assert_mostly(errors, np.inf if case.corners else 10 if case.name == "layer_norm" else 4)
    if build.threads > 1 and build.name.startswith("wide"):
        for one, several in zip(results_of(case, build, command, 1), results, strict=True):
            assert_same_bits(one, several)
