"""Compiles the engine during an install: two setuptools commands, which pyproject.toml names.

If the engine cannot be compiled, the package is installed without it. Then everything runs on NumPy, the build says
what is missing, and the wheel works on every platform (py3-none-any). Setuptools loads this file without the package,
and this file loads building.py in the same way, because the package imports NumPy, which a build does not have.
"""

import importlib.util
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools.command.bdist_wheel import bdist_wheel as _bdist_wheel
from setuptools.command.build_ext import build_ext as _build_ext


def _load_building() -> Any:
    spec = importlib.util.spec_from_file_location("building", Path(__file__).with_name("building.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


building = _load_building()


class build_ext(_build_ext):
    """Compiles the module gpulstm._engine with building.py, or leaves it out."""

    def run(self) -> None:
        if self.editable_mode:
            self._leave_out("an editable install compiles its sources at first use")
        else:
            super().run()

    def build_extension(self, ext: Any) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        target.unlink(missing_ok=True)  # from an earlier build of other sources
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                made = Path(folder) / target.name
                text = building.text_hash(building.cell_files())
                building.build(made, building.module_objects(), building.default_cells(), text)
                shutil.copyfile(made, target)
        except building.CannotCompile as reason:
            self._leave_out(str(reason))

    def _leave_out(self, reason: str) -> None:
        self.warn(f"gpulstm is installed without its compiled engine for the processor: {reason}")
        self.extensions = self.distribution.ext_modules = []


class bdist_wheel(_bdist_wheel):
    """Chooses the tag of the wheel after it is known whether the engine was compiled."""

    def finalize_options(self) -> None:
        if not sysconfig.get_config_var("Py_GIL_DISABLED"):  # free-threaded Python has no stable ABI
            self.py_limited_api = "cp311"
        super().finalize_options()

    def run(self) -> None:
        self.run_command("build")
        self.skip_build = True
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()
