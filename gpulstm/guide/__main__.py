"""``python -m gpulstm.guide --out site``: build the site of the guide and the API reference."""

import sys
import warnings
from pathlib import Path

import click

from gpulstm.errors import GpulstmError


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--out", default="site", type=click.Path(path_type=Path), help="Folder for the site, new or empty.")
@click.option("--force", is_flag=True, help="Replace an older site in this folder.")
def main(out: Path, force: bool) -> None:
    """Build a website from the guide and the API reference. Every warning is an error."""
    try:
        from gpulstm.guide.site import build
    except ImportError as error:
        sys.exit(f'gpulstm.guide: error: {error}; install what the site needs with: pip install ".[docs]"')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            left_out = build(out, force=force)
        except (GpulstmError, Warning, OSError) as error:
            sys.exit(f"gpulstm.guide: error: {error}")
    for module, reason in left_out.items():
        click.echo(f"left out {module}: {reason}")
    click.echo(f"site: {out / 'index.html'}")


if __name__ == "__main__":
    main()
