"""The applications, each usable as a library and from the command line: ``text`` trains language models."""

from gpulstm.labs import text

__all__ = ["text"]
