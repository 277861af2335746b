"""Shared by the labs' commands: the options of every training command, and how an interrupted run is resumed."""

import importlib.util
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gpulstm import parallel
from gpulstm.errors import FileExists
from gpulstm.io.files import check_writable
from gpulstm.labs import model_file
from gpulstm.labs.estimator import Estimator, Run, silent
from gpulstm.labs.files import RunFiles, checkpoint_path
from gpulstm.nn.summary import table
from gpulstm.plot import check_plot
from gpulstm.precision import IEEE, PRECISIONS

FILE = click.Path()  # for the shell's completion only; the lab checks the file
DEVICE = click.option("--device", default="auto", help="Device: auto, cpu, cuda or cuda:N.")
PRECISION = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=IEEE,
    help="Precision of float32 matrix products on a GPU in training; see gl.precision.",
)
ENCODING = click.option("--encoding", default="utf-8", help="Text encoding of the files, e.g. latin-1.")


def run_options(out: str) -> Callable[[Callable], Callable]:
    """The options for a run's device, its files and how it starts; ``out`` is the default model file."""
    options = [
        DEVICE,
        PRECISION,
        click.option("--out", default=out, type=FILE, help="Model file; the checkpoint is written beside it."),
        click.option("--checkpoint-every", default=250, help="Steps between checkpoints."),
        click.option("--resume", is_flag=True, help="Continue from the checkpoint, if there is one."),
        click.option("--force", is_flag=True, help="Overwrite existing files."),
        click.option("--log", type=FILE, help="Write the losses to this file, one JSON object per line."),
        click.option("--plot", type=FILE, help="Plot the losses to this image file (needs matplotlib)."),
        click.option("--quiet", "-q", is_flag=True, help="Print errors only."),
        click.option(
            "--timeout",
            default=parallel.TIMEOUT,
            type=click.FloatRange(min=0, min_open=True),
            callback=_set_timeout,
            expose_value=False,
            help="With several processes: seconds to wait for a process that does not respond.",
        ),
    ]

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# Options of training commands that set a parameter of the estimator: its name there, and the help.
PARAMETERS = {
    "hidden": ("hidden_size", "Hidden size of the LSTM."),
    "layers": ("num_layers", "Number of LSTM layers."),
    "dropout": ("dropout", "Dropout rate."),
    "epochs": ("epochs", "Passes over the training data."),
    "batch": ("batch_size", "Batch size."),
    "lr": ("learning_rate", "Peak learning rate of AdamW, followed by a cosine decay."),
    "weight_decay": ("weight_decay", "Weight decay of AdamW."),
    "warmup": ("warmup", "Warm-up: fraction of the steps in which the learning rate rises."),
    "clip": ("clip_norm", "Maximum gradient norm."),
    "patience": ("patience", "Stop after this many epochs without improvement."),
    "seed": ("random_state", "Random seed; the same seed gives the same model."),
    "dtype": ("dtype", "Type of the parameters."),
}


def parameter_options(usual: Estimator, **words_of: str) -> Callable[[Callable], Callable]:
    """The options for the parameters that all estimators have; the values of ``usual`` are the defaults.

    ``words_of`` appends text to the help of an option.
    """

    def decorate(command: Callable) -> Callable:
        for name, (parameter, words) in reversed(PARAMETERS.items()):
            value = getattr(usual, parameter)
            kind = click.Choice(["float32", "float64"]) if name == "dtype" else int if value is None else None
            words = f"{words}{words_of.get(name, '')}"
            option = click.option(f"--{name.replace('_', '-')}", default=value, type=kind, help=words)
            command = option(command)
        return command

    return decorate


def parameters(options: dict[str, Any]) -> dict[str, Any]:
    """A command's options under the names of the estimator's parameters; other options keep their names."""
    return {PARAMETERS[name][0] if name in PARAMETERS else name: value for name, value in options.items()}


def picture_option(what: str) -> Callable[[Callable], Callable]:
    """The option for the file with a plot of the lab's result."""
    words = f"Plot {what} to this image file (needs matplotlib).  [default: the model's name with .png]"
    return click.option("--picture", type=FILE, help=words)


def run_of(
    out: str,
    picture: str | None,
    options: dict[str, Any],
    about: dict[str, Any] | None = None,
    files: tuple[str, ...] = (),
) -> tuple[Run, dict[str, Any]]:
    """Return the run that the options of ``run_options`` describe, and the other options.

    ``files`` are input files, which the run must not overwrite. If ``picture`` is None, it gets the model's name with
    the ending .png, or there is none if matplotlib is not installed.
    """
    if not Path(out).name:
        raise click.BadParameter(f"expected a file, got {out!r}", param_hint="--out")
    can_draw = importlib.util.find_spec("matplotlib") is not None
    if picture is None and can_draw:
        picture = str(Path(out).with_suffix(".png"))
    names = ("checkpoint_every", "resume", "force", "log", "plot", "quiet")
    taken = {name: options[name] for name in names}
    check_apart(files, None, out=out, log=taken["log"], plot=taken["plot"], picture=picture)
    run = Run(
        RunFiles.of(out, taken["log"], taken["plot"], picture),
        checkpoint_every=taken["checkpoint_every"],
        resume=taken["resume"],
        force=taken["force"],
        progress=not taken["quiet"],
        say=silent if taken["quiet"] else click.echo,
        about=about or {},
    )
    if picture is None:
        run.say("no picture will be drawn: matplotlib is not installed (pip install matplotlib)")
    return run, {name: value for name, value in options.items() if name not in names}


def describe(estimator: Estimator, file: str) -> None:
    """Print an estimator's layers, and what its file says about its training."""
    click.echo(f"{estimator}")
    click.echo(table(estimator.model_))
    for name, fact in model_file.facts(file, estimator.kind).items():
        click.echo(f"{name}: {fact}")


def given(names: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the user has set, on the command line or in the environment, without the defaults."""
    source = click.get_current_context().get_parameter_source
    usual = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {name: value for name, value in names.items() if source(name) not in usual}


def check_apart(files: tuple[str, ...], start: str | None, **targets: str | None) -> None:
    """Check that no target overwrites an input file or another target. Only ``out`` may overwrite the model ``start``.

    Raises click.BadParameter.
    """
    taken = {Path(file).resolve(): "an input FILE" for file in files if file != "-"}
    if targets.get("out") is not None:
        targets["out (its checkpoint)"] = str(checkpoint_path(targets["out"] or ""))
    for name, target in targets.items():
        if target is None:
            continue
        path = Path(target).resolve()
        if path in taken or (start is not None and name in ("log", "plot") and path == Path(start).resolve()):
            words = f"expected another file, because {target} is already {taken.get(path, '--from')}"
            raise click.BadParameter(words, param_hint=f"--{name}")
        taken[path] = f"--{name}"


def check_output(option: str, path: str, read: tuple[str, ...], force: bool) -> None:
    """Check, before any work, that a command can write the file of an option without losing another file.

    Raises click.BadParameter if the file is also an input, FileExists if it exists (unless ``force``), FormatError for
    an unknown image format, and OSError if the file cannot be written.
    """
    check_apart(read, None, **{option: path})
    if option == "picture":
        check_plot(path)
    if Path(path).exists() and Path(path).stat().st_size > 0 and not force:
        raise FileExists(f"{path}: exists already; replace it with --force, or write elsewhere with --{option}")
    check_writable(path)


@contextmanager
def training() -> Iterator[None]:
    """Context of the part of a command that trains. Of several processes, only rank 0 continues after it.

    If the run is interrupted and has a checkpoint, the context adds the command that resumes it to the message.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if getattr(stop, "checkpoint", None) is not None:
            command = ["gpulstm", *sys.argv[1:]]
            if "--resume" not in command:
                command.insert(command.index("--") if "--" in command else len(command), "--resume")
            if (size := parallel.size()) > 1:
                command = ["mpiexec", "-n", str(size), *command]
            stop.args = (f"{stop}\nresume with: {shlex.join(command)}",)
        raise
    if not parallel.group().is_root:
        raise click.exceptions.Exit(0)
    parallel.leave()


def _set_timeout(context: click.Context, option: click.Parameter, seconds: float) -> None:
    parallel.group().timeout = seconds
