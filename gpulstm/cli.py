"""The commands. Bad input ends in one line on standard error and exit code 2, never in a traceback."""

import io
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from gpulstm.errors import GpulstmError, NotFinite
from gpulstm.labs import text

DEFAULT = text.Settings()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="gpulstm")
def cli() -> None:
    """LSTM networks on NumPy and CuPy arrays, with fused CUDA kernels."""


@cli.command()
def info() -> None:
    """Versions, devices, memory, which kernels compile, and why there is no GPU."""
    from gpulstm.info import lines

    for line in lines():
        click.echo(line)


@cli.group(name="text")
def text_lab() -> None:
    """Train a language model on text, and let it write."""


@text_lab.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--level", type=click.Choice(["char", "word"]), default=DEFAULT.level, help="What a token is.")
@click.option("--vocabulary", default=DEFAULT.vocabulary, help="Most words to know, at --level word.")
@click.option("--embedding", default=DEFAULT.embedding, help="Numbers that describe a token.")
@click.option("--hidden", default=DEFAULT.hidden, help="LSTM units in a layer.")
@click.option("--layers", default=DEFAULT.layers, help="LSTM layers.")
@click.option("--dropout", default=DEFAULT.dropout, help="Share of the LSTM's outputs dropped in training.")
@click.option("--batch", default=DEFAULT.batch, help="Places of the text read side by side.")
@click.option("--window", default=DEFAULT.window, help="Tokens a gradient reaches back.")
@click.option("--steps", default=DEFAULT.steps, help="Training steps, each of batch x window tokens.")
@click.option("--lr", default=DEFAULT.lr, help="Highest learning rate of Adam; falls on a cosine.")
@click.option("--warmup", default=DEFAULT.warmup, help="Steps over which the learning rate rises.")
@click.option("--clip", default=DEFAULT.clip, help="Largest norm of the gradient.")
@click.option("--seed", default=DEFAULT.seed, help="Same seed, same model.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default=DEFAULT.dtype, help="Precision.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--validate-every", default=DEFAULT.validate_every, help="Steps between validations.")
@click.option("--patience", type=int, help="Stop after so many validations without a better one.")
@click.option("--out", default="text.safetensors", help="Where the model goes; its checkpoint stands beside it.")
@click.option("--checkpoint-every", default=250, help="Steps between checkpoints.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one.")
@click.option("--log", help="A file for the losses, one JSON object a line.")
@click.option("--plot", help="A picture of the losses (needs the extra 'plot').")
def train(
    files: tuple[str, ...],
    device: str,
    out: str,
    checkpoint_every: int,
    resume: bool,
    log: str | None,
    plot: str | None,
    **knobs: Any,
) -> None:
    """Train a model on text FILEs (UTF-8; - is standard input), or on the Python language reference.

    The last tenth of the text is held out for validation. Ctrl-C saves a checkpoint.
    """
    _check_apart(out=out, log=log, plot=plot, files=files)
    try:
        model = text.train(
            text.read_texts(files) if files else None,
            text.Settings(**knobs),
            device=device,
            out=out,
            checkpoint_every=checkpoint_every,
            resume=resume,
            log=log,
            plot=plot,
            say=click.echo,
        )
    except KeyboardInterrupt as stop:
        command = ["gpulstm", *sys.argv[1:], *([] if resume else ["--resume"])]
        raise KeyboardInterrupt(f"{stop or 'stopped'}\ngo on with: {shlex.join(command)}") from stop
    click.echo("\n" + "".join(text.sample(model, "", 400, temperature=0.8, seed=0)) + "\n")
    click.echo(f"model: {out}\nlet it write: {shlex.join(['gpulstm', 'text', 'sample', out])}")


def _check_apart(files: tuple[str, ...], **targets: str | None) -> None:
    """Refuse to write over a file that is read, or one file twice."""
    taken = {Path(file).resolve(): "a FILE to read" for file in files if file != "-"}
    for name, target in targets.items():
        if target is None:
            continue
        path = Path(target).resolve()
        if path in taken:
            raise click.BadParameter(f"{target}: is {taken[path]} already", param_hint=f"--{name}")
        taken[path] = f"--{name}"


@text_lab.command()
@click.argument("model")
@click.option("--prompt", default="", help="What the text begins with.")
@click.option("--length", default=500, help="Tokens to write after the prompt.")
@click.option("--temperature", default=0.8, help="Lower is safer, higher is bolder; 0 takes the likeliest token.")
@click.option("--top-k", type=int, help="Choose among the K likeliest tokens.")
@click.option("--top-p", default=1.0, help="Choose among the likeliest tokens that together reach this probability.")
@click.option("--seed", type=int, help="Same seed, same text.  [default: another text each time]")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
def sample(model: str, prompt: str, device: str, **options: Any) -> None:
    """Let a MODEL that `gpulstm text train` made write text, printed as it is made."""
    writer = text.load_model(model, device)
    pieces = text.sample(writer, prompt, **options)
    if unseen := writer.unseen(prompt):  # at level "char" that was an error
        click.echo(f"gpulstm: never seen, so read as <unk>: {unseen}", err=True)
    click.echo(prompt, nl=False)
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """0: done. 1: training failed. 2: bad input. 130: stopped by Ctrl-C. 141: nobody reads on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows another
    try:
        with cli.make_context("gpulstm", arguments) as context:
            cli.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as missing:
        missing.show()
        return 2
    except click.UsageError as error:
        place = error.ctx.command_path if error.ctx else "gpulstm"
        return _fail(f"{error.format_message()} (see {place} --help)", 2)
    except BrokenPipeError:
        # Python may flush the stream once more at exit: give that somewhere to go, as its documentation advises.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        click.echo(f"\n{stop}" if str(stop) else "", err=True)
        return 130
    except NotFinite as error:
        return _fail(str(error), 1)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        return _fail(what, 2)
    except (GpulstmError, MemoryError) as error:
        return _fail(str(error) or "out of memory", 2)


def _fail(message: str, code: int) -> int:
    click.echo(f"gpulstm: error: {' '.join(message.split())}", err=True)
    return code
