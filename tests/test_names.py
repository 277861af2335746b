"""What ``import gpulstm as gl`` gives, and what it leaves alone."""

import subprocess
import sys

import pytest

import gpulstm as gl

HEAVY = ("cupy", "tqdm", "click", "safetensors", "matplotlib", "ml_dtypes", "torch")


def test_every_public_name_is_there():
    assert len(gl.__all__) == len(set(gl.__all__))
    for name in gl.__all__:
        assert getattr(gl, name) is not None, name
    assert dir(gl) == sorted(gl.__all__)
    with pytest.raises(AttributeError, match="module 'gpulstm' has no attribute 'lstm_'"):
        _ = gl.lstm_


def test_importing_loads_nothing_that_array_code_does_not_need():
    code = f"import sys, gpulstm; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    late = "import sys, gpulstm as gl; gl.Trainer; gl.io; gl.data; print('gpulstm.train' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
