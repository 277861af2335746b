"""The examples in the docstrings of the estimators are run as they stand there."""

import doctest
import importlib
import inspect

import click
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FileExists, FormatError
from gpulstm.labs import ESTIMATORS
from gpulstm.labs.command import check_output


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_examples_of_an_estimator(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    estimator = getattr(gl, name)
    assert estimator is getattr(gl.labs, name)
    module = importlib.import_module(estimator.__module__)
    names = {**vars(module), "np": np, "gl": gl}
    found = doctest.DocTestFinder(recurse=True).find(estimator, name, module=module, globs=names)
    runner = doctest.DocTestRunner()
    for examples in found:
        runner.run(examples)
    assert runner.tries >= 3 and runner.failures == 0


@pytest.mark.parametrize("name", ESTIMATORS)
def test_help_shows_every_parameter_with_its_default(name):
    estimator = getattr(gl, name)
    parameters = inspect.signature(estimator).parameters
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    assert all(parameter.default is not parameter.empty for parameter in parameters.values())
    words = inspect.getdoc(estimator) + "".join(inspect.getdoc(base) or "" for base in estimator.__mro__)
    assert not [parameter for parameter in parameters if parameter not in words]


def test_what_a_command_writes_is_never_what_it_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("read.png", "old.png"):
        (tmp_path / name).write_bytes(b"something")
    with pytest.raises(click.BadParameter, match="is already an input FILE"):
        check_output("picture", "read.png", ("-", "read.png"), force=True)
    with pytest.raises(FileExists, match=r"old\.png: exists already; replace it with --force.*--picture"):
        check_output("picture", "old.png", ("read.png",), force=False)
    with pytest.raises(FormatError):
        check_output("picture", "new.xyz", (), force=False)
    with pytest.raises(OSError, match="cannot be written"):
        check_output("html", "no/such/page.html", (), force=False)
    check_output("picture", "old.png", ("read.png",), force=True)
    check_output("html", "new.html", ("read.png",), force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.png", "read.png"]
