"""The version, at the bottom of the package so that every part of it can import it."""

__version__ = "0.1.0"
