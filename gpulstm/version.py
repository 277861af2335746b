"""The version, in a file without imports so that every part of the package can import it."""

__version__ = "0.1.0"
