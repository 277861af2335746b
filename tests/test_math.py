"""The elementary functions of kernels/math.cuh on vectors: errors in units in the last place over the whole range of
numbers, special values, and partial loads and stores, for every instruction set this machine can run."""

import functools
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gpulstm import building
from tests.conftest import skip

pytestmark = pytest.mark.slow  # programs in C++: no version of Python or NumPy changes them
ROOT = Path(__file__).parents[1]
TYPES = {"f32": np.float32, "f64": np.float64}
EXACT: dict[str, Callable] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sqrt": np.sqrt,
}
ULPS = {"exp": 1.5, "expm1": 2.25, "log1p": 1, "tanh": 2.5, "sigmoid": 2.5, "sqrt": 0.5001}


@dataclass(frozen=True)
class Build:
    """One way to compile tests/drivers/vectors.cpp."""

    name: str
    lanes: int  # of float
    flags: tuple[str, ...] = ()
    needs: str = ""  # a word of /proc/cpuinfo
    compiler: str = "g++"
    run: tuple[str, ...] = ()

    def serves(self) -> bool:
        """Whether this machine can run it. Only g++ must be there; a second processor's is a gift."""
        cpuinfo = Path("/proc/cpuinfo")
        known = cpuinfo.read_text().split() if cpuinfo.exists() else []
        if self.run:
            return all(map(shutil.which, (self.compiler, *self.run)))
        return not self.needs or self.needs in known

    def __str__(self) -> str:
        return self.name


AVX2, AVX512 = building.ISA_FLAGS["avx2"], building.ISA_FLAGS["avx512"]
BUILDS = (
    Build("baseline", 4),  # SSE2, or NEON
    Build("avx2", 8, AVX2, "avx2"),
    Build("avx2 without fused operations", 8, (*AVX2, "-ffp-contract=off"), "avx2"),
    Build("widest on avx2", 16, (*AVX2, "-DGPULSTM_VECTOR_BYTES=64"), "avx2"),
    Build("avx512", 16, AVX512, "avx512vl"),
    Build("neon", 4, ("-static",), "", "aarch64-linux-gnu-g++", ("qemu-aarch64",)),
)
LARGEST_FLUSHED = {"f32": 2.0**-125.5, "f64": 2.0**-1021.5}


class Driver:
    """tests/drivers/vectors.cpp, compiled."""

    def __init__(self, build: Build, folder: Path) -> None:
        if shutil.which(build.compiler) is None:
            skip(f"vectors need {build.compiler}")
        source, program = ROOT / "tests" / "drivers" / "vectors.cpp", folder / "vectors"
        options = [*building.FLAGS, "-Wall", "-Wextra", "-Werror", "-DGPULSTM_ISA=tested", *build.flags]
        command = [build.compiler, *options, f"-I{ROOT / 'kernels'}", str(source), "-o", str(program)]
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        self.build, self.run = build, [*build.run, str(program)]

    def __call__(self, function: str, x: np.ndarray) -> np.ndarray:
        kind = "f32" if x.dtype == np.float32 else "f64"
        done = subprocess.run([*self.run, function, kind], input=x.tobytes(), stdout=subprocess.PIPE, check=True)
        return np.frombuffer(done.stdout, x.dtype)


@pytest.fixture(scope="module", params=[build for build in BUILDS if build.serves()], ids=str)
def driver(request, tmp_path_factory) -> Driver:
    return Driver(request.param, tmp_path_factory.mktemp("vectors"))


@functools.cache
def numbers(kind: str) -> np.ndarray:
    """Every 4099th float32; for float64, as many over all exponents and where the functions are not flat."""
    if kind == "f32":
        return np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    rng, count = np.random.default_rng(0), 2**18
    anywhere = rng.integers(0, 2**64, count, dtype=np.uint64).view(np.float64)
    return np.concatenate([anywhere, *(rng.uniform(-most, most, count) for most in (1, 45, 720))])


@functools.cache
def exact(function: str, kind: str) -> np.ndarray:
    """In long double, which has eleven bits more than double."""
    with np.errstate(all="ignore"):
        return EXACT[function](numbers(kind).astype(np.longdouble))


def error(got: np.ndarray, want: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(errors in units in the last place of ``want``, 0 where it is no normal number; where it is none)"""
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
    flushed = LARGEST_FLUSHED["f32" if got.dtype == np.float32 else "f64"]
    normal = np.isfinite(rounded) & (np.abs(rounded) > flushed)
    with np.errstate(invalid="ignore"):
        ulps = np.abs(got - want) / np.spacing(np.where(normal, np.abs(rounded), 1))
    return np.where(normal, ulps, 0), ~normal


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("function", EXACT)
def test_errors_are_a_few_units_in_the_last_place(driver, function, kind):
    x, want = numbers(kind), exact(function, kind)
    got = driver(function, x)
    ulps, special = error(got, want)
    worst = int(np.argmax(ulps))
    assert ulps[worst] <= ULPS[function], f"{function}({x[worst]!r}): {got[worst]!r} is {ulps[worst]:.2f} ulp off"
    assert ulps.max() > 0.4, "a comparison that sees no rounding sees nothing"
    with np.errstate(all="ignore"):
        near = np.abs(got - want) <= LARGEST_FLUSHED[kind]
        agree = near | (got == want.astype(got.dtype)) | (np.isnan(got) & np.isnan(want))
    assert agree[special].all(), f"{function}({x[special & ~agree][:3]}) = {got[special & ~agree][:3]}"


@pytest.mark.parametrize("kind", TYPES)
def test_special_values(driver, kind):
    inf, nan = np.inf, np.nan
    x = np.array([0.0, -0.0, inf, -inf, nan, 1e30, -1e30, -1.0, 1.0], TYPES[kind])
    for function, want in (
        ("exp", [1, 1, inf, 0, nan, inf, 0]),
        ("expm1", [0, 0, inf, -1, nan, inf, -1]),
        ("log1p", [0, 0, inf, nan, nan, None, nan, -inf]),
        ("tanh", [0.0, -0.0, 1, -1, nan, 1, -1]),
        ("sigmoid", [0.5, 0.5, 1, 0, nan, 1, 0]),
        ("sqrt", [0, -0.0, inf, nan, nan, None, nan, nan, 1]),
        ("absolute", [0.0, 0.0, inf, inf, nan, None, None, 1, 1]),
        ("minimum", [0, 0, 0.5, -inf, nan, 0.5, None, -1, 0.5]),
        ("maximum", [0.5, 0.5, inf, 0.5, nan, None, 0.5, 0.5, 1]),
        ("minimum_turned", [0, 0, 0.5, -inf, nan, 0.5, None, -1, 0.5]),
        ("maximum_turned", [0.5, 0.5, inf, 0.5, nan, None, 0.5, 0.5, 1]),
    ):
        got = driver(function, x)
        for number, a, b in zip(x, got, want, strict=False):
            assert b is None or a == b or (np.isnan(a) and np.isnan(b)), f"{function}({number}): expected {b}, got {a}"
    assert np.signbit(driver("tanh", x[:2])).tolist() == [False, True]
    assert np.signbit(driver("absolute", x[:2])).tolist() == [False, False]


@pytest.mark.parametrize("kind", TYPES)
def test_vectors_of_every_length(driver, kind, rng):
    """Full vectors, the partial one behind them, where(), number() and integers beside vectors."""
    lanes = driver.build.lanes // (1 if kind == "f32" else 2)
    for count in range(2 * lanes + 2):
        x = rng.uniform(-1, 2.5, count).astype(TYPES[kind])
        x[count // 2 :: 5] = 2
        assert (driver("where", x) == np.where((x > 0) & (x < 1) | (x == 2), x * 3, 1 - x)).all()
        assert (driver("number", x) == TYPES[kind](0.1) + x).all()
