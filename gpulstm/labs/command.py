"""What the labs' commands have in common: options of every training command, and how an interrupted one goes on."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gpulstm.labs.files import checkpoint_path

FILE = click.Path()  # for the shell's completion; whether it can be used is the lab's to say
DEVICE = click.option("--device", default="auto", help="Device: auto, cpu, cuda or cuda:N.")


def run_options(out: str) -> Callable[[Callable], Callable]:
    """The options that say where a run computes, what it writes and how it begins; ``out`` is the usual model."""
    options = [
        DEVICE,
        click.option("--out", default=out, type=FILE, help="Model file; the checkpoint is written beside it."),
        click.option("--checkpoint-every", default=250, help="Steps between checkpoints."),
        click.option("--resume", is_flag=True, help="Continue from the checkpoint, if there is one."),
        click.option("--force", is_flag=True, help="Overwrite existing files."),
        click.option("--log", type=FILE, help="Write the losses to this file, one JSON object per line."),
        click.option("--plot", type=FILE, help="Plot the losses to this image file (needs matplotlib)."),
        click.option("--quiet", "-q", is_flag=True, help="Print errors only."),
    ]

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def given(names: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that stand on the command line (or in its environment), not the defaults."""
    source = click.get_current_context().get_parameter_source
    usual = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {name: value for name, value in names.items() if source(name) not in usual}


def check_apart(files: tuple[str, ...], start: str | None, **targets: str | None) -> None:
    """Refuse to write over a file that is read, or one file twice. ``out`` may be the model that is read."""
    taken = {Path(file).resolve(): "a FILE to read" for file in files if file != "-"}
    if targets["out"] is not None:
        targets["out (its checkpoint)"] = str(checkpoint_path(targets["out"]))
    for name, target in targets.items():
        if target is None:
            continue
        path = Path(target).resolve()
        if path in taken or (start is not None and name in ("log", "plot") and path == Path(start).resolve()):
            raise click.BadParameter(f"{target}: is {taken.get(path, '--from')} already", param_hint=f"--{name}")
        taken[path] = f"--{name}"


@contextmanager
def says_how_to_go_on() -> Iterator[None]:
    """Add to the message of an interrupted run the command that goes on from its checkpoint, if there is one."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if getattr(stop, "checkpoint", None) is not None:
            command = ["gpulstm", *sys.argv[1:]]
            if "--resume" not in command:
                command.insert(command.index("--") if "--" in command else len(command), "--resume")
            stop.args = (f"{stop}\nresume with: {shlex.join(command)}",)
        raise
