"""The processor's engine is found, compiled at first use, kept and loaded; where there is none, there is a reason."""

import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpulstm import building, engine, library_cache
from gpulstm.building import CannotCompile
from tests import tiny_engine
from tests.conftest import ROOT, skip
from tests.tiny_engine import run, script

pytestmark = pytest.mark.slow  # each test starts processes and a compiler


@pytest.fixture
def checkout(tmp_path) -> Path:
    if not shutil.which("g++"):
        skip("g++ was not found: the engine is compiled with it")
    return tiny_engine.make(tmp_path / "checkout")


def kept(checkout: Path) -> list[Path]:
    return sorted((checkout / "cache").iterdir())


def build_module(checkout: Path) -> Path:
    """The module that an install would put into the package."""
    path = checkout / "gpulstm" / "_engine.abi3.so"
    text = "b.text_hash(b.cell_files())"
    run(checkout, f"b.build(b.Path({str(path)!r}), b.module_objects(), b.default_cells(), {text})")
    return path


# -- compiled at first use -----------------------------------------------------------------------------------
def test_compiled_at_first_use_once_and_said_so(checkout):
    first, said = run(checkout)
    there, _, origin, why = first.split("|")
    assert there == "True" and why == "" and Path(origin).parent == checkout / "cache"
    assert said.count("\n") == 1 and said.startswith("gpulstm: compiling the processor's engine for ")
    assert run(checkout) == (first, "")


def test_every_cell_and_type_is_compiled_in(checkout):
    calls = "for t in ('float32', 'float64'): print(*(e.entry(t)(c, 0, None) for c in (b'One', b'Two', b'No')))"
    assert run(checkout, calls)[0] == "1 2 -1\n1 2 -1"
    assert run(checkout, "print(*(e.entry(t)(b'', 1, None) for t in ('float32', 'float64')))")[0] == "44 48"


def test_other_types_are_refused(checkout):
    code = "try: e.entry('float16')\nexcept TypeError as error: print(error)"
    assert "expected float32 or float64, got float16" in run(checkout, code)[0]


@pytest.mark.parametrize("file", ["host/engine.cpp", "host/answer.h", "cells/both.cuh"])
def test_changed_text_is_compiled_anew(checkout, file):
    first, _ = run(checkout)
    path = checkout / "kernels" / file
    path.write_text(path.read_text() + "\n// changed\n")
    second, said = run(checkout)
    assert "compiling" in said and second != first


def test_all_text_of_the_engine_counts(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    monkeypatch.setattr(building, "kernel_folder", lambda: tmp_path / "kernels")
    before = building.text_hash(building.cell_files())
    files = [*(tmp_path / "kernels" / "host").iterdir(), *building.cell_files()]
    assert len(files) > 5
    for path in files:
        text = path.read_text()
        path.write_text(text + "//")
        assert building.text_hash(building.cell_files()) != before, path
        path.write_text(text)
    assert building.text_hash(building.cell_files()) == before


def test_the_compilers_options_stand_behind_its_name(checkout):
    answer = "print(e.entry('float32')(b'', 1, None))"
    assert run(checkout, answer, CXX="g++ -DANSWER=60")[0] == "64"
    assert run(checkout, answer, CXX="g++ -DANSWER=60", GPULSTM_CXX="g++ -DANSWER=70")[0] == "74"
    assert run(checkout, answer)[0] == "44"


def test_another_version_of_the_compiler_compiles_anew(checkout, tmp_path):
    wrapper = script(tmp_path, 'case "$*" in *--version*) echo "$VERSION";; *) exec g++ "$@";; esac')
    for version, compiles in (("1", True), ("1", False), ("2", True)):
        _, said = run(checkout, CXX=wrapper, VERSION=version)
        assert ("compiling" in said) == compiles


# -- instruction sets ----------------------------------------------------------------------------------------
def test_an_instruction_set_can_be_forced(checkout):
    runs = "print(*[isa for isa in b.instruction_sets() if e.library().gpulstm_supports(isa.encode())])"
    for isa in run(checkout, runs)[0].split():
        assert run(checkout, GPULSTM_ISA=isa)[0].startswith(f"True|{isa}|")
        assert run(checkout, "print(e.entry('float64'))", GPULSTM_ISA=isa)[0]


@pytest.mark.parametrize("runs", [["baseline"], ["baseline", "avx2"], ["baseline", "avx2", "avx512"]])
def test_the_most_capable_one_is_taken(monkeypatch, runs):
    monkeypatch.delenv("GPULSTM_ISA", raising=False)
    monkeypatch.setattr(building, "instruction_sets", lambda: tuple(building.ISA_FLAGS))
    library = SimpleNamespace(gpulstm_supports=lambda isa: isa.decode() in runs)
    assert engine._instruction_set(library) == runs[-1]


@pytest.mark.parametrize("isa", ["sse9", "avx512", "AVX2"])
def test_one_that_does_not_run_here_is_refused(checkout, isa):
    processor = checkout / "kernels" / "host" / "processor.cpp"
    processor.write_text(processor.read_text().replace("return avx2 && avx512", "return 0"))
    code = "try: e.library()\nexcept e.DeviceError as error: print(error)"
    printed, _ = run(checkout, code, GPULSTM_ISA=isa)
    assert printed.startswith("GPULSTM_ISA: expected baseline") and printed.endswith(f"got '{isa}'")


def test_the_engine_can_be_turned_off(checkout):
    code = f"{tiny_engine.SHOW}\ntry: e.isa()\nexcept e.NoKernel as error: print(error)"
    printed, said = run(checkout, code, GPULSTM_ISA="none")
    assert printed.splitlines() == [
        "False|None|None|GPULSTM_ISA=none turns it off",
        "the processor's engine is missing: GPULSTM_ISA=none turns it off",
    ]
    assert said == "" and not (checkout / "cache").exists()


# -- no compiler, or one that fails --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"PATH": "/nowhere"},
            "no compiler was found: expected g++ or clang++ on the PATH, or its name in GPULSTM_CXX",
        ),
        ({"CXX": "none -O2"}, "no compiler was found: CXX names 'none', which does not exist"),
        (
            {"CXX": "g++", "GPULSTM_CXX": "none"},
            "no compiler was found: GPULSTM_CXX names 'none', which does not exist",
        ),
    ],
)
def test_without_a_compiler_there_is_a_reason(checkout, variables, words):
    printed, said = run(checkout, **variables)
    assert printed == f"False|None|None|the package was installed without its compiled module, and {words}"
    assert said == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "echo 'In file' >&2; echo 'a.cpp:3: error: no luck' >&2; exit 1",
            "the compiler failed: a.cpp:3: error: no luck",
        ),
        ("exit 3", "printed no message"),
        ("kill -9 $$", "was killed by signal 9"),
        ('case "$*" in *engine.cpp*) kill -9 $$;; *) exec g++ "$@";; esac', "was killed by signal 9"),
        ('case "$*" in *-shared*) echo no disk >&2; exit 1;; *) exec g++ "$@";; esac', "the compiler failed: no disk"),
        (
            'case "$*" in *-shared*) while [ "$1" != -o ]; do shift; done; echo x >"$2";; *) exec g++ "$@";; esac',
            "does not load",
        ),
    ],
)
def test_a_compiler_that_fails_is_a_reason(checkout, tmp_path, text, words):
    """At once, half-way, at the end, or with a library that is none."""
    printed, _ = run(checkout, GPULSTM_CXX=script(tmp_path, text))
    assert printed.startswith("False|None|None|") and words in printed
    assert run(checkout)[0].startswith("True|")  # nothing of it was kept


# -- the cache -----------------------------------------------------------------------------------------------
def test_where_the_cache_is(monkeypatch, tmp_path):
    for name in ("GPULSTM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if not building.MACOS:
        assert library_cache.cache_folder() == tmp_path / ".cache" / "gpulstm"
        monkeypatch.setenv("XDG_CACHE_HOME", "/x")
        assert library_cache.cache_folder() == Path("/x/gpulstm")
    monkeypatch.setenv("GPULSTM_CACHE", "~/own")
    assert library_cache.cache_folder() == tmp_path / "own"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
@pytest.mark.parametrize("place", ["cache", "link", "cache/below"])
def test_a_folder_that_others_can_write_to_is_refused(monkeypatch, tmp_path, mode, place):
    cache, link = tmp_path / "cache", tmp_path / "link"
    cache.mkdir()
    cache.chmod(mode)
    link.symlink_to(cache)
    monkeypatch.setenv("GPULSTM_CACHE", str(tmp_path / place))
    if mode == 0o1777 and place == "cache/below":  # as below /tmp: only its owner can rename what lies there
        assert library_cache._safe_folder().stat().st_mode & 0o777 == 0o700
        return
    with pytest.raises(CannotCompile, match=rf"others can write to {cache} \(drw.*set GPULSTM_CACHE to another"):
        library_cache._safe_folder()


def test_nothing_is_loaded_from_such_a_folder(checkout):
    assert run(checkout)[0].startswith("True|")
    (checkout / "cache").chmod(0o777)
    printed, _ = run(checkout)
    assert printed.startswith("False|") and "others can write to" in printed


def test_a_folder_of_somebody_else_is_refused(monkeypatch, tmp_path):
    assert library_cache._fault(tmp_path) == ""
    (tmp_path / "own").mkdir()
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert library_cache._fault(tmp_path / "own") == f"{tmp_path / 'own'} belongs to another user"


def test_a_file_in_the_caches_place_is_a_reason(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GPULSTM_CACHE", str(tmp_path / "file"))
    with pytest.raises(CannotCompile, match=r"no safe folder for compiled libraries: .*file: File exists"):
        library_cache.load([], [], "")


@pytest.mark.parametrize("fault", ["cut", "changed", "empty"])
def test_a_damaged_library_is_compiled_anew(checkout, fault):
    first, _ = run(checkout)
    path = Path(first.split("|")[2])
    whole = path.read_bytes()
    path.unlink()  # rather than write where it may be mapped
    path.write_bytes({"cut": whole[: len(whole) // 2], "changed": whole[:-1] + b"!", "empty": b""}[fault])
    second, said = run(checkout)
    assert second == first and "compiling" in said and path.read_bytes() == whole


def test_processes_that_compile_at_once(checkout):
    processes = [tiny_engine.start(checkout) for _ in range(4)]
    for process in processes:
        printed, said = process.communicate()
        assert process.returncode == 0 and printed.startswith("True|"), said
    for path in kept(checkout):  # no part of one is left behind
        assert path.stem.endswith("-" + hashlib.sha256(path.read_bytes()).hexdigest()[:32]), path
    assert run(checkout)[1] == ""


def test_libraries_used_longest_ago_go(checkout):
    first, _ = run(checkout)
    origin = Path(first.split("|")[2])
    for number in range(60):
        old = checkout / "cache" / f"old-{number}.so"
        old.touch()
        os.utime(old, (number, number))
    assert run(checkout, CXX="g++ -DOTHER")[0].startswith("True|")  # compiles, and tidies
    names = {path.name for path in kept(checkout)}
    assert (
        len(names) == library_cache._KEPT and origin.name in names and "old-59.so" in names and "old-0.so" not in names
    )


# -- the module inside the package ---------------------------------------------------------------------------
def test_the_module_serves_without_a_compiler(checkout):
    path = build_module(checkout)
    printed, said = run(checkout, PATH="/nowhere")
    assert printed.startswith("True|") and printed.endswith(f"|{path}|") and said == ""
    assert not (checkout / "cache").exists()
    for isa in building.instruction_sets():
        assert "FuncPtr" in run(checkout, f"print(e.library().gpulstm_engine_{isa}_f64)")[0]
    assert "<module" in run(checkout, "import gpulstm._engine as m; print(m)")[0]


@pytest.mark.parametrize("file", ["host/engine.cpp", "host/answer.h", "cells/both.cuh"])
def test_a_module_of_other_text_is_never_used(checkout, file):
    build_module(checkout)
    path = checkout / "kernels" / file
    path.write_text(path.read_text() + "\n// changed\n")
    printed, _ = run(checkout, PATH="/nowhere")
    assert printed.startswith("False|") and "_engine.abi3.so was compiled from other sources than" in printed
    printed, said = run(checkout)
    assert str(checkout / "cache") in printed and "compiling" in said


def test_a_damaged_module_is_a_reason(checkout):
    (checkout / "gpulstm" / "_engine.abi3.so").write_bytes(b"nonsense")
    printed, _ = run(checkout, PATH="/nowhere")
    assert printed.startswith("False|") and "_engine.abi3.so does not load (" in printed
    assert run(checkout)[0].startswith("True|")


# -- a cell of the user's own --------------------------------------------------------------------------------
OWN = '#include "constant.cuh"\nstruct Mine : Cell { static constexpr int number = CONSTANT; };\n'
CALL = (
    "own = e.own_cell('own.cuh', 'Mine'); f = e.entry('float32', own); print(f(b'Mine', 0, None), f(b'One', 0, None))"
)
FAILS = "try: e.own_cell('own.cuh', {!r})\nexcept e.NoKernel as error: print(error)"


@pytest.fixture
def own(checkout) -> Path:
    (checkout / "constant.cuh").write_text("#define CONSTANT 7\n")
    (checkout / "own.cuh").write_text(OWN)
    return checkout


def test_a_cell_of_ones_own_is_compiled_once_and_alone(own):
    printed, said = run(own, CALL)
    assert printed == "7 -1" and "gpulstm: compiling the cell Mine, once" in said
    assert run(own, CALL) == ("7 -1", "")
    (own / "constant.cuh").write_text("#define CONSTANT 8\n")
    printed, said = run(own, CALL)
    assert printed == "8 -1" and said.count("compiling") == 1


def test_two_of_one_file_are_two_libraries(own):
    (own / "own.cuh").write_text(OWN + OWN.replace("Mine", "Yours"))
    calls = "print(*(e.entry('float32', e.own_cell('own.cuh', c))(c.encode(), 0, None) for c in ('Mine', 'Yours')))"
    assert run(own, calls)[0] == "7 7"


def test_it_borrows_the_engines_threads(own):
    calls = "f(b'Mine', 2, None); e.entry('float32')(b'One', 2, None); print(e.library().gpulstm_num_threads())"
    assert run(own, f"{CALL}; {calls}")[0].splitlines()[1] == "2"


def test_one_that_cannot_be_compiled_has_a_reason(own):
    assert run(own, FAILS.format("Other"))[0] == "own.cuh: expected a line 'struct Other : Cell', got Mine"
    no_file = "cell file: expected the path of a .cuh file, but there is no file at "
    assert run(own, FAILS.format("Mine").replace("own.cuh", "no.cuh"))[0].startswith(no_file)
    (own / "constant.cuh").write_text("")
    assert run(own, FAILS.format("Mine"))[0].startswith("own.cuh: the compiler failed: ")
    printed, _ = run(own, FAILS.format("Mine"), PATH="/nowhere")
    assert printed.startswith("own.cuh: the processor's engine is missing: ") and "no compiler was found" in printed
    build_module(own)
    assert run(own, FAILS.format("Mine"), PATH="/nowhere")[0].startswith("own.cuh: no compiler was found")
