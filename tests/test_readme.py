"""The README's examples of the library: their code is run as it stands there, on every device, and learns."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_library_section(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = README[README.index("## As a library") : README.index("### What there is")]
    first, classifier, _, explained, rounded = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict = {}
    steps = 3 if device.is_cuda else 100
    exec(first.replace("range(100)", f"range({steps})"), names)  # our own README
    exec(classifier.replace("epochs=20", f"epochs={2 if device.is_cuda else 20}"), names)
    exec(explained, names)
    exec(rounded, names)
    assert names["model"].device == device.name
    assert (tmp_path / "classifier.safetensors").is_file() and (tmp_path / "run.safetensors").is_file()
    assert np.isfinite(names["error"].item())
    if not device.is_cuda:
        assert names["loss"] is not None and names["trainer"].evaluate(names["batches"]) < 0.1
