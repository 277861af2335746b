"""Plants faults in a copy of the tree, one at a time, and reports those that no test notices.

    python tests/mutants.py                              # every kernel and every cell; hours
    python tests/mutants.py kernels/cells/lstm.cuh --list
    python tests/mutants.py gpulstm/cells/lstm.py --jobs 2
    python tests/mutants.py kernels/norm.cu:61           # the faults of one line

A fault is one changed token: a sign, an operator, a comparison, a number, or a name exchanged with a sibling
(another gate, c for c_prev, dh for dy). Faults that change nothing that can be seen stand in HARMLESS, each with
its reason. The exit code is the number of survivors and of entries of HARMLESS that match no fault any more.

One process imports pytest and NumPy, and is forked for each fault, in a copy of the tree for each job; the child
imports gpulstm and the tests itself, so that a fault in Python is seen. No compiled Python is kept, and the
kernels' compiler (tests/emulated_cuda/compile.py) knows them by their text.
"""

import argparse
import collections
import functools
import importlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 90  # seconds for the tests of one fault: one that never ends, or for long, is noticed

# File -> the tests that must notice its faults.
TESTS = {
    "gpulstm/cells/activation.py": ["tests/test_activation.py"],
    "gpulstm/cells/cell.py": ["tests/test_own_cell.py", "tests/test_cells.py"],
    "gpulstm/cells/coupled.py": ["tests/test_cells.py"],
    "gpulstm/cells/general.py": ["tests/test_general.py", "tests/test_cells.py"],
    "gpulstm/cells/gru.py": ["tests/test_gru.py", "tests/test_cells.py"],
    "gpulstm/cells/layer_norm.py": ["tests/test_layer_norm.py", "tests/test_cells.py"],
    "gpulstm/cells/lstm.py": ["tests/test_recurrent.py", "tests/test_cells.py"],
    "gpulstm/cells/mingru.py": ["tests/test_scan.py"],
    "gpulstm/cells/minlstm.py": ["tests/test_scan.py"],
    "gpulstm/cells/peephole.py": ["tests/test_peephole.py", "tests/test_cells.py"],
    "gpulstm/cells/rnn.py": ["tests/test_rnn.py", "tests/test_cells.py"],
    "gpulstm/cells/row.py": ["tests/test_own_cell.py"],
    "gpulstm/cells/slstm.py": ["tests/test_slstm.py", "tests/test_cells.py"],
    "gpulstm/functional/products.py": ["tests/test_own_cell.py", "tests/test_cells.py"],
    "kernels/activation.cuh": ["tests/test_activation.py", "tests/test_general.py"],
    "kernels/adam.cu": ["tests/test_optim.py"],
    "kernels/adam.cuh": ["tests/test_optim.py"],
    "kernels/cell.cuh": ["tests/test_own_cell.py"],
    "kernels/cells/coupled.cuh": ["tests/test_cells.py"],
    "kernels/cells/general.cuh": ["tests/test_general.py", "tests/test_cells.py"],
    "kernels/cells/gru.cuh": ["tests/test_gru.py", "tests/test_cells.py"],
    "kernels/cells/layer_norm.cuh": ["tests/test_layer_norm.py", "tests/test_cells.py"],
    "kernels/cells/lstm.cuh": ["tests/test_recurrent.py", "tests/test_cells.py"],
    "kernels/cells/mingru.cuh": ["tests/test_scan.py"],
    "kernels/cells/minlstm.cuh": ["tests/test_scan.py"],
    "kernels/cells/peephole.cuh": ["tests/test_peephole.py", "tests/test_cells.py"],
    "kernels/cells/rnn.cuh": ["tests/test_rnn.py", "tests/test_cells.py"],
    "kernels/cells/slstm.cuh": ["tests/test_slstm.py", "tests/test_cells.py"],
    "kernels/common.cuh": [
        "tests/test_launch.py",
        "tests/test_cross_entropy.py",
        "tests/test_clip.py",
        "tests/test_optim.py",
    ],
    "kernels/cross_entropy.cu": ["tests/test_cross_entropy.py"],
    "kernels/ctc.cu": ["tests/test_ctc.py"],
    "kernels/ctc.cuh": ["tests/test_ctc.py"],
    "kernels/device.cuh": ["tests/test_fused_kernel.py"],
    "kernels/dropout.cu": ["tests/test_dropout.py"],
    "kernels/embedding.cu": ["tests/test_embedding.py"],
    "kernels/host/adam.cpp": ["tests/test_compiled.py"],
    "kernels/host/backward.h": ["tests/test_engine_replay.py"],
    "kernels/host/cross_entropy.cpp": ["tests/test_compiled.py"],
    "kernels/host/ctc.cpp": ["tests/test_compiled.py"],
    "kernels/host/dropout.cpp": ["tests/test_compiled.py"],
    "kernels/host/embedding.cpp": ["tests/test_compiled.py"],
    "kernels/host/engine.cpp": ["tests/test_engine_replay.py"],
    "kernels/host/forward.h": ["tests/test_engine_replay.py"],
    "kernels/host/gradients.h": ["tests/test_engine_replay.py"],
    "kernels/host/lanes.h": ["tests/test_engine_replay.py"],
    "kernels/host/matmul.cpp": ["tests/test_compiled.py"],
    "kernels/host/norm.cpp": ["tests/test_compiled.py"],
    "kernels/host/normed.h": ["tests/test_engine_replay.py"],
    "kernels/host/pool.cpp": ["tests/test_threads.py"],
    "kernels/host/pool.h": ["tests/test_threads.py"],
    "kernels/host/product.h": ["tests/test_engine_replay.py"],
    "kernels/host/sequence.h": ["tests/test_engine_replay.py"],
    "kernels/host/share.h": ["tests/test_compiled.py"],
    "kernels/host/steps.h": ["tests/test_engine_replay.py"],
    "kernels/host/vector.h": ["tests/test_math.py"],
    "kernels/math.cuh": ["tests/test_math.py", "tests/test_activation.py", "tests/test_slstm.py"],
    "kernels/norm.cu": ["tests/test_clip.py"],
    "kernels/product.cuh": ["tests/test_fused_kernel.py"],
    "kernels/scan.cu": ["tests/test_scan.py"],
    "kernels/scanned.cuh": ["tests/test_scan.py"],
    "kernels/sequence.cuh": ["tests/test_fused_kernel.py"],
    "kernels/sequence_backward.cu": ["tests/test_fused_kernel.py"],
    "kernels/sequence_forward.cu": ["tests/test_fused_kernel.py"],
    "kernels/split_mix.cuh": ["tests/test_dropout.py"],
    "kernels/step.cu": [
        "tests/test_recurrent.py",
        "tests/test_own_cell.py",
        "tests/test_gru.py",
        "tests/test_peephole.py",
        "tests/test_modes.py",
    ],
    "kernels/step.cuh": ["tests/test_recurrent.py", "tests/test_own_cell.py", "tests/test_modes.py"],
    "kernels/step_rows.cu": ["tests/test_layer_norm.py", "tests/test_cells.py"],
    "kernels/table.cuh": ["tests/test_clip.py", "tests/test_optim.py"],
}
COMPILED = ("kernels/host/share.h",)
# Of the tests of all cells those of one, for a file that has but that cell.
NAMED = {name: name for name in ("coupled", "general", "gru", "layer_norm", "peephole", "rnn", "slstm")}
NAMED["step_rows"] = "layer_norm"
# The engine's, with the build that is compiled fastest.
NAMED |= {file: "plain" for file, tests in TESTS.items() if tests == ["tests/test_engine_replay.py"]}

SWAPS = {
    "+": "-", "-": "+", "*": "/", "/": "*", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "++": "--",
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&",
    "i": "f", "f": "g", "g": "o", "o": "i", "di": "df", "df": "dg", "dg": "do", "do": "di",
    "z_i": "z_f", "z_f": "z_g", "z_g": "z_o", "z_o": "z_i", "scale": "shift", "shift": "scale",
    "tanh_c": "c", "c": "c_prev", "c_prev": "c", "c_new": "tanh_c", "h_prev": "h",
    "dh_all": "dc_all", "dc_all": "dh_all",
    "dh": "dy", "dy": "dh", "held": "dh", "zx": "zr", "zr": "zx", "b_ih": "b_hh", "b_hh": "b_ih",
    "j": "b", "b": "j", "B": "H", "H": "B", "sigmoid": "tanh_", "tanh_": "sigmoid",
    "r": "z", "z": "n", "n": "r", "dr": "dz", "dz": "dn", "dn": "dr", "z_r": "z_z", "z_z": "z_n", "z_n": "z_r",
    "n_prev": "m_prev", "m_prev": "n_prev", "m": "n", "dzx": "dzr", "dzr": "dzx",
    "dc_prev": "dc", "scale_g": "shift_g", "shift_g": "scale_g",
}  # fmt: skip

# file -> {(the line without spaces around it, the change): why nothing can be seen of it}
_ALL_HOLD_IT = "every thread of the block, or of the row, holds the value: any may write it"
_EQUAL = "of two equal numbers either may be taken"
_DEFAULT = "callers always define it (functional/cross_entropy.py)"
_FOUR = "for (long long k = 4 * four; k < 4 * four + 4 && k < n; ++k) {"
_PROJECTED = "what is projected of an ended sequence is not used, and its gradient is zero; it only must be a number"
_SHAPE = "all have one shape, and only that is used"
_ANY_FACTOR = "any factor serves that is not too large; at 1 it is e at most"
_NOT_SPLIT = "the gradients of zx and zr are one; the second is not read"
_REFUSED = "a kernel's compiler refuses it (tests/test_nvrtc.py); without a kernel it is not read"
_NOT_READ = "nothing reads it"
_UNROLL = "how often a loop is unrolled changes no result"
HARMLESS: dict[str, dict[tuple[str, str], str]] = {
    "gpulstm/cells/cell.py": {
        (
            "kept: int = 0  # numbers that a unit stores for the backward pass, besides one per gate",
            "0 -> 1",
        ): _REFUSED,
    },
    "gpulstm/cells/general.py": {
        ("dz_i, dz_f = (di - df) * act_f.slope(xp, z_i, clip), xp.zeros_like(df)", "df -> dg"): _SHAPE,
    },
    "gpulstm/cells/gru.py": {
        ("parts = [xp.zeros_like(r), dz * f.slope(xp, z_z, clip), dn * g.slope(xp, z_n, clip)]", "r -> z"): _SHAPE,
        ("return dz, dz, (dh_prev,), ()", "dz -> dn"): _NOT_SPLIT,
        ("_, dz_z, dz_n = xp.split(dzx, 3, axis=1)", "dzx -> dzr"): _NOT_SPLIT,
        ('kernel=Kernels("gru", "Gru", numbers, kept=1),', "1 -> 2"): _REFUSED,
        (
            'products=(Product("h", "w_hh", slice(0, 2)), Product("inner", "w_hh", slice(2, 3))),',
            "3 -> 4",
        ): "zr and w_hh end at 3 blocks",
    },
    "gpulstm/cells/layer_norm.py": {
        ('kernel=Kernels("layer_norm", "LayerNorm", kept=4, rows=True),', "4 -> 5"): _REFUSED,
    },
    "gpulstm/cells/slstm.py": {
        ("LARGEST = 8", "8 -> 9"): "any limit serves whose exp a half type holds",
        ("return dz, dz, (None, dc * f, dn * f, dlog_old), ()", "dz -> dn"): _NOT_SPLIT,
    },
    "gpulstm/cells/mingru.py": {("least = xp.minimum(z_z, 0)", "0 -> 1"): _ANY_FACTOR},
    "gpulstm/cells/minlstm.py": {("least = xp.minimum(xp.minimum(z_f, z_i), 0)", "0 -> 1"): _ANY_FACTOR},
    "gpulstm/functional/products.py": {
        ("return cleared or len(written) < G", "< -> <="): "zeros over which every product is written",
    },
    "gpulstm/cells/peephole.py": {
        ('Product("h", "w_hh", slice(0, 4)),', "4 -> 5"): "zr and w_hh end at 4 blocks",
        ('Product("inner", "weight_ch", slice(3, 4), slice(2, 3)),', "4 -> 5"): "zr ends at 4 blocks",
        ('Product("inner", "weight_ch", slice(3, 4), slice(2, 3)),', "3 -> 4"): "weight_ch ends at 3 blocks",
    },
    "kernels/common.cuh": {
        ("if (threadIdx.x < half && scratch[threadIdx.x + half] > scratch[threadIdx.x])", "> -> >="): _EQUAL,
    },
    "kernels/activation.cuh": {
        ("return where(z > limit, limit, where(z < -limit, -limit, z));", "> -> >="): _EQUAL,
        ("return where(z > limit, limit, where(z < -limit, -limit, z));", "< -> <="): _EQUAL,
        ("case RELU: return where(z > zero, z, zero);", "> -> >="): _EQUAL,
        ("case LEAKY_RELU: return where(z > zero, z, a * z);", "> -> >="): _EQUAL,
        ("return where(y < zero, zero, where(y > one, one, y));", "< -> <="): _EQUAL,
        ("return where(y < zero, zero, where(y > one, one, y));", "> -> >="): _EQUAL,
        ("case ELU: return where(z > zero, z, a * expm1_(z));", "> -> >="): _EQUAL,
        (
            "default: return where(z > zero, z, zero) + log1p_(exp_(-absolute(z)));  // SOFTPLUS",
            "> -> >=",
        ): _EQUAL,
    },
    "kernels/cell.cuh": {
        ("return number<V>(0);", "0 -> 1"): "nothing calls it",
    },
    "kernels/step.cuh": {
        ("constexpr int KEEP = KEPT + 1;     // likewise for what it keeps", "1 -> 2"): _NOT_READ,
        (
            "constexpr int ROOM = VECTORS + 1;  // for a unit's vectors: C++ has no arrays of no size",
            "1 -> 2",
        ): _NOT_READ,
        (
            "constexpr double options[CELL::options + 1] = {};  "
            "// zeros, whose number does not matter to a cell without options",
            "1 -> 2",
        ): _NOT_READ,
        ("states[0] = h_prev ? load(h_prev[k]) : 0;", "0 -> 1"): _PROJECTED,
        ("constexpr int IN_GATES = KEPT < GATES ? KEPT : GATES, BESIDES = KEPT - IN_GATES;", "< -> <="): _EQUAL,
    },
    "kernels/step.cu": {
        ("d[0] = CELL::direct ? load(direct[k]) : 0;", "0 -> 1"): _NOT_READ,
    },
    "kernels/step_rows.cu": {
        ("#define THREADS 256", "256 -> 257"): "a block has a power of two of threads",
        ("#define THREADS 1024", "1024 -> 1025"): "a block has a power of two of threads",
        ("if (threadIdx.x == 0) {", "== -> !="): _ALL_HOLD_IT,
        ("if (threadIdx.x == 0) {", "0 -> 1"): _ALL_HOLD_IT,
        ("ACC g[GATES], old[STATES] = {0, c_prev};", "0 -> 1"): _NOT_READ,
        ("ACC g[GATES], old[STATES] = {0, before[first + j]};", "0 -> 1"): _NOT_READ,
        (
            "ACC g[GATES], x_hat[GATES], r_hat[GATES], e[VECTORS], old[STATES] = {0, before[k]};",
            "0 -> 1",
        ): _NOT_READ,
        (
            "h[k] = store(mixed(share_kept(alive, keep_h, b, k), h_prev ? load(h_prev[k]) : 0, h_new));",
            "0 -> 1",
        ): _PROJECTED,
    },
    "kernels/cells/mingru.cuh": {("V least = minimum(z_z, number<V>(0));", "0 -> 1"): _ANY_FACTOR},
    "kernels/cells/minlstm.cuh": {
        ("V least = minimum(minimum(z_f, z_i), number<V>(0));", "0 -> 1"): _ANY_FACTOR,
    },
    "kernels/scan.cu": {("#pragma unroll 4", "4 -> 5"): _UNROLL},
    "kernels/norm.cu": {
        ("if (threadIdx.x == 0) partial[chunk] = sum;", "== -> !="): _ALL_HOLD_IT,
        ("if (threadIdx.x == 0) partial[chunk] = sum;", "0 -> 1"): _ALL_HOLD_IT,
        ("if (threadIdx.x == 0) {", "== -> !="): _ALL_HOLD_IT,
        ("if (threadIdx.x == 0) {", "0 -> 1"): _ALL_HOLD_IT,
        ("result[1] = coefficient > 1 ? 1 : coefficient;", "> -> >="): _EQUAL,
        ("if (scale == 1) return;", "1 -> 2"): "1 * g is g: returning early only saves reading and writing it",
    },
    "kernels/cross_entropy.cu": {
        ("#define THREADS 128", "128 -> 129"): _DEFAULT,
        ("#define LANES 32", "32 -> 33"): _DEFAULT,
        ("if (lane < half && scratch[threadIdx.x + half] > scratch[threadIdx.x])", "> -> >="): _EQUAL,
        (
            "for (long long first = (long long)blockIdx.x * ROWS; first < rows; "
            "first += (long long)gridDim.x * ROWS) {",
            "< -> <=",
        ): "a round more, in which no thread has a row",
        ("ACC x_y = kept ? load(x_row[y]) : 0;", "0 -> 1"): "the loss of a row that is not kept is 0 whatever x_y is",
        ("if (x_c > largest) {", "> -> >="): "of two equal logits both branches make total * 1 + 1",
        ("if (lane == 0) {", "== -> !="): _ALL_HOLD_IT,
        ("if (lane == 0) {", "0 -> 1"): _ALL_HOLD_IT,
    },
    "kernels/dropout.cu": {
        ("FOR_EACH(four, (n + 3) / 4) {", "3 -> 4"): "a thread more, whose elements begin at n: its loop ends at once",
        (
            "FOR_EACH(four, (n + 3) / 4) {",
            "/ -> *",
        ): "more threads, whose elements begin at n or later: their loops end at once",
        ("long long word = -1;", "1 -> 2"): "any number that no word has",
        ("unsigned long long draws = 0;", "0 -> 1"): "every thread computes its first word before it reads one",
        (_FOUR, "< -> <="): "elements of the next thread too, with the same bits",
        (_FOUR, "4 -> 5"): "elements of the next threads too, with the same bits",
        (
            "if (number / 4 != word) draws = split_mix((unsigned long long)seed, word = number / 4);",
            "/ -> *",
        ): "computes the word anew for each element",
    },
    "kernels/sequence_backward.cu": {
        ("Product<CELL::inner ? 1 : 0> inner_product;", "0 -> 1"): "a product that no turn of a cell without one runs",
    },
    "kernels/sequence_forward.cu": {
        (
            "for (int g = 0; g < INNER; ++g)",
            "< -> <=",
        ): "writes the number of a gate that there is not, which nothing reads",
        ("place(turn + 1, at.b)[at.j] = as_factor(unit.inner);", "+ -> -"): "of the two places the same one",
    },
    "kernels/embedding.cu": {
        ("if (ids[start] != ids[start + piece - 1]) continue;", "1 -> 2"): (
            "sums a piece that ends in another row too, which embedding_backward never reads; a piece has two or more"
        ),
    },
}


@functools.cache
def _text(file: str) -> str:
    """The unharmed file, as it was when the run began."""
    return (ROOT / file).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Mutant:
    """One changed token."""

    file: str
    line: int
    column: int
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column + 1}: {self.old} -> {self.new}"

    def key(self) -> tuple[str, str]:
        """What HARMLESS calls it by."""
        return _text(self.file).splitlines()[self.line - 1].strip(), f"{self.old} -> {self.new}"

    @property
    def harmless(self) -> bool:
        return self.key() in HARMLESS.get(self.file, {})

    def planted(self) -> str:
        lines = _text(self.file).splitlines(keepends=True)
        line = lines[self.line - 1]
        assert line[self.column :].startswith(self.old)
        lines[self.line - 1] = line[: self.column] + self.new + line[self.column + len(self.old) :]
        return "".join(lines)


def _python_tokens(text: str):
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER):
            yield token.start[0], token.start[1], token.string


_CUDA_TOKEN = re.compile(
    r"(?P<skip>//[^\n]*|\#[ \t]*(?:include|if|elif|else|endif)[^\n]*|\"[^\"\n]*\")"
    r"|(?P<token>[A-Za-z_]\w*|0[xX][0-9a-fA-F]+[uUlL]*|\d+\.?\d*(?:[eE][+-]?\d+)?[fFuUlL]*"
    r"|\+\+|\+=|-=|\*=|/=|<=|>=|==|!=|&&|\|\||<<|>>|[-+*/<>])"
)


def _cuda_tokens(text: str):
    for match in _CUDA_TOKEN.finditer(text):
        if match["token"]:
            before = text[: match.start()]
            yield before.count("\n") + 1, match.start() - before.rfind("\n") - 1, match["token"]


def _changed(token: str, line: str, column: int) -> str | None:
    """What the token becomes, or None for a token that is left alone."""
    if re.fullmatch(r"\d+[uUlL]*", token):
        digits = re.match(r"\d+", token)
        assert digits is not None
        return str(int(digits[0]) + 1) + token[len(digits[0]) :]
    if re.fullmatch(r"\d+\.\d*[fF]?", token):
        return "1.5" if token.startswith("0.5") else "0.5"
    if token in "*&" and re.search(r"(REAL|ACC|V|Norm|long|char|int|void|unsigned|double|float)\s*$", line[:column]):
        return None  # a pointer's star is no product
    if token in "<>" and re.search(r"(template |\w)<(class V|V|ACC)?$", line[: column + (token == "<")]):
        return None  # around a type
    return SWAPS.get(token)


def _parameter_lines(lines: list[str]) -> set[int]:
    """The lines of parameter lists: they only name things, so exchanging two names there is no fault."""
    found, inside = set(), False
    for number, code in enumerate(lines, 1):
        opens = re.search(r"extern \"C\" __global__|\b(FN|__device__ inline)\b.*[^}]$", code)
        inside = inside or opens is not None
        if inside:
            found.add(number)
        inside = inside and not code.rstrip().endswith("{")
    return found


def mutants(file: str) -> list[Mutant]:
    """Every fault that is planted in ``file``."""
    text = _text(file)
    lines = text.splitlines()
    parameters = _parameter_lines(lines)
    tokens = list(_python_tokens(text) if file.endswith(".py") else _cuda_tokens(text))
    names = {token for _, _, token in tokens}
    found = []
    for line, column, token in tokens:
        code = lines[line - 1]
        if line in parameters or re.match(r"\s*(def|import|from|GATES|class|@)\b", code):
            continue
        if token in ("dzx", "dzr") and file.endswith(".py") and "split=True" not in text:
            continue  # they are one array
        new = _changed(token, code, column)
        # A name that the file does not know ends every test at once, whatever the tests are worth.
        if new is not None and new != token and (new in names or not new.isidentifier()):
            found.append(Mutant(file, line, column, token, new))
    return found


def stale(file: str) -> list[str]:
    """The entries of HARMLESS for this file that match no fault any more."""
    keys = {mutant.key() for mutant in mutants(file)}
    return [
        f"{file}: no fault is {change} in {line!r}"
        for line, change in HARMLESS.get(file, {})
        if (line, change) not in keys
    ]


def _copied(base: Path, number: int) -> Path:
    """A copy of the tree for faults to be planted in."""
    copy = base / str(number)
    for name in ("gpulstm", "kernels", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    return copy


def _start(mutant: Mutant, copy: Path, limit: int) -> int:
    """Plant the fault in the copy and run its tests in a child: the child's id. It exits with pytest's code."""
    (copy / mutant.file).write_text(mutant.planted(), encoding="utf-8")
    if child := os.fork():
        return child
    code = 2
    try:
        signal.alarm(limit)  # ends a kernel's endless loop too, which Python would never get out of
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        log = os.open(copy / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        os.environ["GPULSTM_TEST_DEVICES"] = "cpu" if mutant.file.startswith("gpulstm/cells/") else "emulated"
        if mutant.file.endswith((".cu", ".cuh", ".h")) and mutant.file not in COMPILED:
            os.environ["GPULSTM_ISA"] = "none"  # no test of its takes the whole engine, which would be compiled anew
        pytest = importlib.import_module("pytest")
        # If its tests all bear its name: fewer can only notice less.
        named = NAMED.get(mutant.file) or NAMED.get(Path(mutant.file).stem)
        chosen = ["-k", named] if named else []
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *chosen, *TESTS[mutant.file]]))
    finally:
        os._exit(code)


def _tested(todo: list[Mutant], copies: list[Path], limit: int) -> Iterator[tuple[Mutant, int]]:
    """Each fault with its tests' exit code, as they end; one child for each copy at a time."""
    waiting, free = collections.deque(todo), list(copies)
    running: dict[int, tuple[Mutant, Path]] = {}
    while waiting or running:
        while waiting and free:
            mutant, copy = waiting.popleft(), free.pop()
            running[_start(mutant, copy, limit)] = mutant, copy
        child, status = os.wait()
        mutant, copy = running.pop(child)
        (copy / mutant.file).write_text(_text(mutant.file), encoding="utf-8")
        free.append(copy)
        yield mutant, os.waitstatus_to_exitcode(status)


def survivors(todo: list[Mutant], jobs: int) -> list[Mutant]:
    """The faults that no test notices; prints each as it is tested."""
    found = []
    with tempfile.TemporaryDirectory() as base:
        # Set before NumPy is imported, and inherited by the children. Compiled kernels go to TMPDIR.
        os.environ.update(OPENBLAS_NUM_THREADS="1", TMPDIR=base)
        os.environ.pop("CI", None)
        sys.dont_write_bytecode = True
        for slow in ("numpy", "ml_dtypes", "pytest", "_pytest.assertion.rewrite"):
            importlib.import_module(slow)
        copies = [_copied(Path(base), number) for number in range(jobs)]
        for file in sorted({mutant.file for mutant in todo}):
            for _, code in _tested([Mutant(file, 1, 0, "", "")], copies[:1], 10 * LIMIT):
                if code:
                    sys.exit(f"{(copies[0] / 'log').read_text()}\n{file}: its tests fail without any fault")
        for count, (mutant, code) in enumerate(_tested(todo, copies, LIMIT), 1):
            if code == 0:
                found.append(mutant)
            what = {0: "SURVIVED", -signal.SIGALRM: "too long"}.get(code, "noticed ")
            print(f"{count}/{len(todo)} {what} {mutant}", flush=True)
    return found


def _chosen(names: list[str]) -> list[Mutant]:
    """The faults of FILE, FILE:LINE or FILE:LINE:COLUMN."""
    found = []
    for name in names:
        file, *place = name.split(":")
        if file not in TESTS:
            sys.exit(f"{file}: expected one of {', '.join(sorted(TESTS))}")
        found += [m for m in mutants(file) if [str(m.line), str(m.column + 1)][: len(place)] == place]
    return found


def main() -> int:
    """Plant, test, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE[:LINE[:COLUMN]]")
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE", help="the same")
    parser.add_argument("--harmless", action="store_true", help="plant those of HARMLESS too, which must survive")
    parser.add_argument("--list", action="store_true", help="name the faults and stop")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    names = options.files + options.only or sorted(TESTS)
    chosen = _chosen(names)
    todo = [mutant for mutant in chosen if options.harmless or not mutant.harmless]
    if options.list:
        print(*todo, sep="\n")
        return 0
    found = survivors(todo, options.jobs)
    gone = [entry for file in sorted({mutant.file for mutant in chosen}) for entry in stale(file)]
    print(f"{len(todo)} faults, {len(found)} survived; {len(chosen) - len(todo)} more are known to change nothing")
    print(*found, *(f"HARMLESS is out of date: {entry}" for entry in gone), sep="\n")
    return len(found) + len(gone)


if __name__ == "__main__":
    sys.exit(main())
