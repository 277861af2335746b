"""The command line. Bad input prints one line to standard error and exits with code 2, without a traceback."""

import io
import os
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout

import click
from click.shell_completion import shell_complete

from gpulstm import parallel
from gpulstm.errors import GpulstmError, NotFinite
from gpulstm.labs.forecast.command import forecast_lab
from gpulstm.labs.sentiment.command import sentiment_lab
from gpulstm.labs.speech.command import speech_lab
from gpulstm.labs.text_command import text_lab
from gpulstm.labs.translate.command import translate_lab
from gpulstm.parallel.environment import rank_asked
from gpulstm.train.interrupt import Terminated
from gpulstm.version import __version__

COMPLETE = "_GPULSTM_COMPLETE"  # the variable by which a shell asks for completions


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def cli() -> None:
    """LSTM networks on NumPy and CuPy arrays, with fused CUDA kernels.

    For completion in bash, add this line to ~/.bashrc. In zsh or fish, write zsh_source or fish_source, and add it to
    ~/.zshrc or ~/.config/fish/config.fish:
    eval "$(_GPULSTM_COMPLETE=bash_source gpulstm)"
    """


@cli.command()
def info() -> None:
    """Show versions, devices, memory and which kernels compile; if there is no GPU, show why."""
    from gpulstm.info import lines

    for line in lines():
        click.echo(line)


cli.add_command(forecast_lab)
cli.add_command(speech_lab)
cli.add_command(sentiment_lab)
cli.add_command(text_lab)
cli.add_command(translate_lab)


def main() -> None:
    """Run the command line and exit with its code. Under mpiexec, all processes run ``train``, rank 0 the rest."""
    arguments = sys.argv[1:]
    if arguments[1:2] != ["train"] or {"-h", "--help"} & set(arguments):
        sys.exit(0 if rank_asked() > 0 else _run(arguments))
    try:
        group = parallel.init()
    except GpulstmError as error:
        sys.exit(_fail(str(error), 2))
    sys.exit(_run(arguments) if group.size == 1 else _run_together(group, arguments))


def _run_together(group: parallel.Group, arguments: list[str]) -> int:
    """Run a command in several processes; only rank 0 prints. If one fails, all end, with that one's message."""
    told = io.StringIO()
    with ExitStack() as quiet:
        if not group.is_root:
            quiet.enter_context(redirect_stdout(io.StringIO()))
            quiet.enter_context(redirect_stderr(told))
        code = _run(arguments)
    if code not in (0, 130, 143) and parallel.size() > 1:
        group.end(code, told.getvalue())
    return code


def _run(arguments: list[str]) -> int:
    """Return the exit code; 1: training failed, 2: bad input, 130: Ctrl-C, 141: the output was closed, 143: SIGTERM."""
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(cli, {}, "gpulstm", COMPLETE, instruction)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for characters that the terminal cannot show
    try:
        with cli.make_context("gpulstm", arguments) as context:
            cli.invoke(context)
        if sys.stdout is not None:  # None if the shell has closed it
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
        # Python may flush the stream again at exit. Its documentation advises to redirect it to devnull.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, Terminated) as stop:
        click.echo(f"\n{stop}" if str(stop) else "", err=True)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    except NotFinite as error:
        return _fail(str(error), 1)
    except GpulstmError as error:
        return _fail(str(error), 2)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        return _fail(what, 2)
    except MemoryError as error:
        return _fail(str(error) or "out of memory", 2)


def _fail(message: str, code: int) -> int:
    group = parallel.group()
    who = f"{group.name(group.rank)}: " if group.size > 1 else ""
    click.echo(f"gpulstm: error: {who}{' '.join(message.split())}", err=True)
    return code
