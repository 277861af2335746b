"""Checkpoints: all that a run needs to go on, as a nest in one file. The format is gpulstm/io/tree.py's."""

from gpulstm.io.tree import detached, load, on_device, save, to_host

__all__ = ["detached", "load", "on_device", "save", "to_host"]
