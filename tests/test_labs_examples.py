"""The examples in the docstrings of the estimators are run as they stand there."""

import doctest
import importlib
import inspect

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.labs import ESTIMATORS


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
