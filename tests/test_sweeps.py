"""Many trainings at once: the README's search runs on a Dask cluster, and finds what it finds without one."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, require

pytestmark = pytest.mark.slow  # no version of the core's dependencies changes it

# The workers import the script too; ``fits`` counts those of the process that searches.
BEFORE = """
import numpy as np
import gpulstm as gl

series, fits, fit = np.sin(np.arange(200) / 5), [], gl.Forecaster.fit
gl.Forecaster.fit = lambda self, *given: fits.append(1) or fit(self, *given)
"""
AFTER = """
    elsewhere, fits[:] = len(fits), []
    alone = GridSearchCV(search.estimator, grid, cv=folds).fit(series)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(search.cv_results_[name], alone.cv_results_[name], rtol=1e-5)
    assert search.best_params_ == alone.best_params_
    print("fits here:", elsewhere, len(fits))
"""


def test_a_search_on_a_dask_cluster(tmp_path):
    require("distributed")
    require("sklearn")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(import joblib.*?)```", readme, re.DOTALL)[0]
    for usual, tiny in (
        ("[32, 64]", "[4, 8]"),
        ("horizon=12", "horizon=12, epochs=1"),
        ("_worker=1", "_worker=1, n_workers=2"),
    ):
        assert usual in code
        code = code.replace(usual, tiny)
    script = tmp_path / "search.py"
    script.write_text(BEFORE + code + AFTER)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # four settings in three folds on the workers, and the best once more here; alone all thirteen are here
    assert done.stdout.splitlines()[-1] == "fits here: 1 13"
