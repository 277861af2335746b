"""Plants faults in a copy of the tree, one at a time, and reports those that no test notices.

    python tests/mutants.py                      # every kernel and every cell; hours
    python tests/mutants.py --only kernels/lstm.cu --list
    python tests/mutants.py --only gpulstm/cells/lstm.py --jobs 2

A fault is one changed token: a sign, an operator, a comparison, a number, or a name exchanged with a sibling
(another gate, c for c_prev, dh for dy). Faults that change nothing that can be seen stand in HARMLESS, each with
its reason. The exit code is the number of survivors.
"""

import argparse
import concurrent.futures
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# File -> the tests that must notice its faults.
TESTS = {
    "gpulstm/cells/lstm.py": ["tests/test_recurrent.py"],
    "kernels/lstm.cu": ["tests/test_recurrent.py"],
    "kernels/common.cuh": [
        "tests/test_recurrent.py",
        "tests/test_launch.py",
        "tests/test_cross_entropy.py",
        "tests/test_optim.py",
        "tests/test_clip.py",
    ],
    "kernels/cross_entropy.cu": ["tests/test_cross_entropy.py"],
    "kernels/dropout.cu": ["tests/test_dropout.py"],
    "kernels/embedding.cu": ["tests/test_embedding.py"],
    "kernels/adam.cu": ["tests/test_optim.py"],
    "kernels/norm.cu": ["tests/test_clip.py"],
}

SWAPS = {
    "+": "-", "-": "+", "*": "/", "/": "*", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "++": "--",
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&",
    "i": "f", "f": "g", "g": "o", "o": "i", "di": "df", "df": "dg", "dg": "do", "do": "di",
    "z_i": "z_f", "z_f": "z_g", "z_g": "z_o", "z_o": "z_i", "scale": "shift", "shift": "scale",
    "tanh_c": "c", "c": "c_prev", "c_prev": "c", "c_new": "tanh_c", "h_prev": "h",
    "dh_all": "dc_all", "dc_all": "dh_all",
    "dh": "dy", "dy": "dh", "held": "dh", "zx": "zr", "zr": "zx", "b_ih": "b_hh", "b_hh": "b_ih",
    "j": "b", "b": "j", "B": "H", "H": "B", "sigmoid": "tanh_", "tanh_": "sigmoid",
    "dc_prev": "dc", "scale_g": "shift_g", "shift_g": "scale_g",
}  # fmt: skip

# (file, the line without spaces around it, the change) -> why nothing can be seen of it.
HARMLESS: dict[tuple[str, str, str], str] = {
    ("kernels/lstm.cu", "h[k] = h_prev ? h_prev[k] : store(0);", "0 -> 1"): (
        "what is projected of an ended sequence is not used, and its gradient is zero; it only must be a number"
    ),
}


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

    def key(self) -> tuple[str, str, str]:
        text = (ROOT / self.file).read_text().splitlines()[self.line - 1]
        return self.file, text.strip(), f"{self.old} -> {self.new}"

    def planted(self) -> str:
        lines = (ROOT / self.file).read_text().splitlines(keepends=True)
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
    if token in "*&" and re.search(r"(REAL|ACC|long|char|int|void|unsigned|double|float)\s*$", line[:column]):
        return None  # a pointer's star is no product
    return SWAPS.get(token)


def _parameter_lines(lines: list[str]) -> set[int]:
    """The lines of kernels' parameter lists: they only name things, so exchanging two names there is no fault."""
    found, inside = set(), False
    for number, code in enumerate(lines, 1):
        inside = inside or 'extern "C" __global__' in code
        if inside:
            found.add(number)
        inside = inside and not code.rstrip().endswith("{")
    return found


def mutants(file: str) -> list[Mutant]:
    """Every fault that is planted in ``file``."""
    text = (ROOT / file).read_text()
    lines = text.splitlines()
    found = []
    parameters = _parameter_lines(lines)
    for line, column, token in _python_tokens(text) if file.endswith(".py") else _cuda_tokens(text):
        code = lines[line - 1]
        if line in parameters or re.match(r"\s*(def|import|from|GATES|class|@)\b", code):
            continue
        new = _changed(token, code, column)
        if new is not None and new != token:
            found.append(Mutant(file, line, column, token, new))
    return found


def survives(mutant: Mutant, base: Path, device: str) -> bool:
    """Whether the tests pass with the fault planted, in a copy of their own."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        copy = Path(folder)
        for name in ("gpulstm", "kernels", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / mutant.file).write_text(mutant.planted())
        # An installed gpulstm must not serve the kernels: the copy's own lie where launch.py looks first.
        (copy / "gpulstm" / "kernels").symlink_to(copy / "kernels")
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            "GPULSTM_TEST_DEVICES": device,
            "OPENBLAS_NUM_THREADS": "1",
        }
        environment.pop("CI", None)
        tests = [copy / test for test in TESTS[mutant.file]]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *map(str, tests)]
        try:
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return False
        if done.returncode not in (0, 1):
            # A fault that breaks an import is noticed too, but a broken set-up would be noticed for every fault.
            assert "rror" in done.stdout + done.stderr, done.stdout + done.stderr
        return done.returncode == 0


def main() -> int:
    """Plant, test, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sorted(TESTS), default=sorted(TESTS), metavar="FILE")
    parser.add_argument("--list", action="store_true", help="name the faults and stop")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    todo = [m for file in options.only if (ROOT / file).exists() for m in mutants(file)]
    harmless = [m for m in todo if m.key() in HARMLESS]
    todo = [m for m in todo if m.key() not in HARMLESS]
    if options.list:
        print(*todo, sep="\n")
        return 0
    survivors = []
    with tempfile.TemporaryDirectory() as base, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        device = {m: "cpu" if m.file.endswith(".py") else "emulated" for m in todo}
        for file in {m.file for m in todo}:
            unharmed = Mutant(file, 1, 0, "", "")
            if not survives(unharmed, Path(base), device[next(m for m in todo if m.file == file)]):
                sys.exit(f"the tests of {file} fail without any fault; nothing can be learnt")
        results = pool.map(lambda m: survives(m, Path(base), device[m]), todo)
        for count, (mutant, survived) in enumerate(zip(todo, results, strict=True), 1):
            if survived:
                survivors.append(mutant)
            print(f"{count}/{len(todo)} {'SURVIVED' if survived else 'noticed '} {mutant}", flush=True)
    print(f"{len(todo)} faults, {len(survivors)} survived; {len(harmless)} more are known to change nothing")
    print(*survivors, sep="\n")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(main())
