"""benchmarks.registers reads what NVRTC says of a kernel, and fails for one that spills."""

import pytest

from benchmarks import harness, registers
from tests.conftest import require

pytestmark = pytest.mark.slow  # a harness that no version of a dependency changes
FILE = """extern "C" __global__ void held(float* x, long long n) {
    float held[64];
    for (int k = 0; k < 64; ++k) held[k] = x[k];
    for (long long k = 0; k < n; ++k) x[k] = held[k * 7 % 64];
}
extern "C" __global__ void shared(float* x) { __shared__ float s[100]; s[threadIdx.x] = x[0]; x[1] = s[3]; }"""


@pytest.fixture
def one(tmp_path):
    require("cupy_backends.cuda.libs.nvrtc").getVersion()
    (tmp_path / "own.cu").write_text(FILE)
    return registers.Compiled("own", str(tmp_path / "own.cu"), "", (), "float32", 90)


def test_registers_shared_memory_and_spills_are_read(one):
    rows = {row["entry"]: row for row in registers.measured(require("cupy.cuda").nvrtc, one)}
    assert rows["held"]["spilled"] >= 256 and rows["held"]["shared"] == 0
    assert rows["shared"]["spilled"] == 0 and rows["shared"]["shared"] == 400
    assert all(0 < row["registers"] <= 255 for row in rows.values())


def test_the_command_leaves_rows_and_a_table_and_fails_for_a_spill(one, tmp_path, monkeypatch, capsys):
    few = [each for each in registers.compilations((80,), ("float16",)) if each.file in ("adam", "sequence_forward")]
    monkeypatch.setattr(registers, "compilations", lambda architectures, reals: few[:3])
    assert registers.main(["--out", str(tmp_path)]) == 0
    rows = harness.read(tmp_path / "registers.json")["rows"]
    assert {row["kernel"] for row in rows} == {"adam", "sequence_forward 8x8", "sequence_forward 8x16"}
    assert all((row["mma"] > 0) == row["kernel"].startswith("sequence") and row["spilled"] == 0 for row in rows)
    assert "| adam | adam | float16 |" in (tmp_path / "registers.md").read_text()
    monkeypatch.setattr(registers, "compilations", lambda architectures, reals: [one])
    assert registers.main(["--quick"]) == 1 and "| own | held | float32 |" in capsys.readouterr().out


def test_every_kernel_is_compiled_for_every_type_and_architecture():
    todo = list(registers.compilations(registers.ARCHITECTURES, registers.REALS))
    assert {each.file for each in todo} == {text.file for text in registers.info.kernel_texts()}
    assert {(each.real, each.architecture) for each in todo} == {
        (real, architecture) for real in registers.REALS for architecture in registers.ARCHITECTURES
    }
