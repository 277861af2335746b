"""What .ci/run asks of the tree and the machine, one answer a line.

python .ci/facts.py commands    the commands of README.md, a line for each
python .ci/facts.py lowest      the lowest versions that pyproject.toml declares, as pins for pip
python .ci/facts.py pythons     the other Pythons of this machine, from the lowest that pyproject.toml takes
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def commands() -> list[str]:
    """The lines of the README's blocks of shell, in their order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


def lowest() -> list[str]:
    """name==version for the dependencies and those of the extra "test": ``name>=version`` is what they must be."""
    pins = {}
    for requirement in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]:
        bound = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)
        if not bound:
            sys.exit(f"pyproject.toml: expected name>=version, got {requirement!r}")
        pins[bound[1]] = f"{bound[1]}=={bound[2]}"
    return list(pins.values())


def _candidates() -> Iterator[Path]:
    """python3.N of the path, and of every version that pyenv has installed."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
        folders += sorted(Path(root).glob("versions/*/bin"))
    for folder in folders:
        yield from sorted(path for path in folder.glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name))


def pythons(candidates: Iterable[Path] | None = None) -> list[str]:
    """One Python of every released minor version but this one's, if it starts and can make an environment."""
    low = int(re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])[1])
    ask = "import sys, venv, ensurepip; print(sys.version_info.minor, sys.version_info.releaselevel)"
    found = {}
    for path in _candidates() if candidates is None else candidates:
        done = subprocess.run([path, "-c", ask], capture_output=True, text=True)
        minor, level = (done.stdout.split() if done.returncode == 0 else None) or ("0", "broken")
        if level == "final" and int(minor) >= low and int(minor) != sys.version_info.minor:
            found.setdefault(int(minor), str(path))
    return [found[minor] for minor in sorted(found)]


if __name__ == "__main__":
    answers = {answer.__name__: answer for answer in (commands, lowest, pythons)}
    if sys.argv[1:2] not in [[name] for name in answers]:
        sys.exit(__doc__)
    for line in answers[sys.argv[1]]():
        print(line)
