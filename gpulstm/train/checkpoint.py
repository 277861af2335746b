"""Checkpoints: everything a run needs to continue, in one file, in the format of gpulstm/io/tree.py."""

from gpulstm.io.tree import detached, load, on_device, save, to_host

__all__ = ["detached", "load", "on_device", "save", "to_host"]
