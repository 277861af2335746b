"""What .ci/run asks of the tree: the README's commands, the lowest versions, the Pythons of a machine."""

import importlib.util
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SPEC = importlib.util.spec_from_file_location("facts", ROOT / ".ci" / "facts.py")
facts = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(facts)


def test_the_readme_installs_and_tests():
    commands = facts.commands()
    assert commands[0] == "pip install ." and 'pip install ".[test]" && pytest -m "not slow"' in commands


def test_all_blocks_of_shell_are_commands_and_no_others(tmp_path, monkeypatch):
    text = "a\n```sh\none\ntwo && three\n```\n```python\nx\n```\n\n```sh\nfour\n```\n"
    (tmp_path / "README.md").write_text(text)
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    assert facts.commands() == ["one", "two && three", "four"]


def test_the_lowest_versions_are_those_of_the_core_and_the_tests():
    names = {pin.partition("==")[0] for pin in facts.lowest()}
    assert {"numpy", "safetensors", "tqdm", "click", "pytest", "ml_dtypes", "matplotlib", "h5py"} <= names


def test_a_requirement_without_a_lowest_version_is_refused(monkeypatch):
    project = {"dependencies": ["numpy>=2.2", "click<9"], "optional-dependencies": {"test": ["pytest>=8"]}}
    monkeypatch.setattr(facts, "PROJECT", project)
    with pytest.raises(SystemExit, match="expected name>=version, got 'click<9'"):
        facts.lowest()
    project["dependencies"].pop()
    assert facts.lowest() == ["numpy==2.2", "pytest==8"]


def test_one_python_of_each_other_released_version_that_works(tmp_path):
    own = sys.version_info.minor
    prints = {
        f"a/python3.{own}": f"echo {own} final",
        "a/python3.90": "echo 90 final",
        "b/python3.90": "echo 90 final",
        "a/python3.10": "echo 10 final",
        "a/python3.91": "echo 91 alpha",
        "a/python3.92": "exit 127",  # as a shim of pyenv does
        "a/python3.89": "echo 89 final",
    }
    for name, line in prints.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    found = facts.pythons(tmp_path / name for name in prints)
    assert found == [str(tmp_path / "a/python3.89"), str(tmp_path / "a/python3.90")]


def test_the_path_is_searched(tmp_path, monkeypatch):
    for name in ("python3.11", "python3.12-config", "python3", "python3.13t"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(facts._candidates()) == [tmp_path / "python3.11"]


def test_an_unknown_question_is_answered_with_the_usage():
    done = subprocess.run([sys.executable, ROOT / ".ci" / "facts.py", "what"], capture_output=True, text=True)
    assert done.returncode == 1 and "facts.py lowest" in done.stderr
