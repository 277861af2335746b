"""The pool of threads (kernels/host/pool.cpp): calls, barrier, forks, several callers, sanitizers; and their number."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gpulstm as gl
from gpulstm import threads
from gpulstm.errors import ShapeError
from tests.conftest import ROOT, skip

POOL, DRIVER = ROOT / "kernels" / "host" / "pool.cpp", ROOT / "tests" / "drivers" / "threads.cpp"
CHECKS = re.findall(r'{"(\w+)", \w+}', DRIVER.read_text())
SANITIZERS = {"plain": (), "thread": ("-fsanitize=thread",), "address": ("-fsanitize=address,undefined",)}
ENVIRONMENT = {"TSAN_OPTIONS": "halt_on_error=1", "UBSAN_OPTIONS": "halt_on_error=1"}
# ThreadSanitizer supports no new threads in a child of a process that had some.
CASES = [(name, check) for name in SANITIZERS for check in CHECKS if not (name == "thread" and "fork" in check)]


def compile_cpp(target: Path, *arguments: str | Path) -> Path:
    """What g++ makes of the sources and options ``arguments``."""
    if not shutil.which("g++"):
        skip("there is no g++")
    command = ["g++", "-std=c++17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", *arguments, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Callable[[str], Path]:
    """The driver with a sanitizer, compiled at its first use."""
    folder = tmp_path_factory.mktemp("drivers")
    return functools.cache(lambda name: compile_cpp(folder / name, POOL, DRIVER, *SANITIZERS[name]))


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return compile_cpp(tmp_path_factory.mktemp("library") / "pool.so", POOL, "-fPIC", "-shared")


@pytest.mark.slow
@pytest.mark.parametrize(("sanitizer", "check"), CASES)
def test_pool(driver, sanitizer, check):
    command = [driver(sanitizer), check]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def run_python(code: str, *arguments: str | Path, **environment: str) -> str:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *map(str, arguments)]
    settings = os.environ | environment
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ctypes lets go of the GIL for the call, and each thread takes it to note its number.
CALL = """
import ctypes, os, sys, threading, _ctypes
from gpulstm import threads
library = ctypes.CDLL(sys.argv[1])
WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
def numbers():
    seen = []
    library.gpulstm_parallel(8, WORK(lambda context, thread, n: seen.append((thread, n))), None)
    return sorted(seen)
threads.set_num_threads(3)
threads.connect(library)
expected = [(k, 3) for k in range(3)]
assert numbers() == expected
"""


def test_from_python(library):
    run_python(CALL, library)


def test_python_forks_while_other_threads_call(library):
    code = """
# Python's own fork may hang while a thread that Python did not make begins or ends a call of Python: these call C.
over, nothing = False, ctypes.cast(ctypes.CDLL(None).abs, WORK)
def calls():
    while not over: library.gpulstm_parallel(8, nothing, None)
hosts = [threading.Thread(target=calls) for _ in range(2)]
for host in hosts: host.start()
for _ in range(10):
    child = os.fork()
    if child == 0: os._exit(0 if numbers() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
over = True
for host in hosts: host.join()
assert numbers() == expected
"""
    run_python(CALL + code, library)


@pytest.mark.skipif(sys.platform == "win32", reason="dlclose")
def test_its_code_stays_when_the_library_is_closed(library):
    code = "_ctypes.dlclose(library._handle)\nassert sys.argv[1] in open('/proc/self/maps').read()\nnumbers()"
    run_python(CALL + code, library)


def test_the_interpreter_ends_while_a_thread_calls(library):
    code = """
work = ctypes.cast(library.gpulstm_num_threads, ctypes.c_void_p)  # any function in C that takes what it is given
def calls():
    while True: library.gpulstm_parallel(3, work, None)
host = threading.Thread(target=calls, daemon=True)
host.start()
print("the end")
"""
    assert run_python(CALL + code, library) == "the end"


# -- their number ----------------------------------------
@pytest.fixture
def unset(monkeypatch):
    monkeypatch.setattr(threads, "_number", None)
    monkeypatch.setattr(threads, "_library", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


class Library:
    def __init__(self):
        self.got = []

    def gpulstm_set_num_threads(self, n):
        self.got.append(n)


def test_a_number_set_before_the_library_is_there_is_remembered(unset):
    gl.set_num_threads(5)
    assert gl.get_num_threads() == 5
    library = Library()
    threads.connect(library)
    gl.set_num_threads(7)
    assert library.got == [5, 7] and gl.get_num_threads() == 7


def test_all_cores_that_the_process_may_use(unset, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9}, raising=False)
    assert gl.get_num_threads() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(1000)))
    monkeypatch.setattr(threads, "_number", None)
    assert gl.get_num_threads() == threads.MOST


def test_all_cores_where_a_process_cannot_ask(unset, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert gl.get_num_threads() == 6


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("7,2", 7), (" 7 ", 7), ("0", 3), ("-1", 3), ("many", 3)])
def test_omp_num_threads(unset, monkeypatch, text, number):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert gl.get_num_threads() == number


@pytest.mark.parametrize("n", [0, -1, threads.MOST + 1, 1.5, None])
def test_another_number_is_refused(n):
    before = gl.get_num_threads()
    with pytest.raises(ShapeError, match=r"^n: expected 1 to 256 threads, got"):
        gl.set_num_threads(n)
    assert gl.get_num_threads() == before


def test_the_most_threads_are_those_of_the_pool():
    assert f"constexpr int most = {threads.MOST};" in POOL.read_text()
