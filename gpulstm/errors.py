"""The exceptions: every error gpulstm raises on purpose is a GpulstmError and the built-in that fits.

Messages name what was wrong, what was wanted and what came:
``weight_hh: want (16, 4) = (gates*hidden, hidden), got (16, 5)``.
"""


class GpulstmError(Exception):
    """Base of every error that gpulstm raises on purpose."""


class ShapeError(GpulstmError, ValueError):
    """An array, or a number that sets the size of one, has the wrong shape."""


class DTypeError(GpulstmError, TypeError):
    """An array has the wrong element type, or something is no array at all."""


class DeviceError(GpulstmError, RuntimeError):
    """Arrays live on different devices, or the device asked for cannot be used."""


class NoKernel(GpulstmError, RuntimeError):
    """The path asked for cannot serve this case; the message says why and what can."""


class CellError(GpulstmError, ValueError):
    """A cell's equations, their derivative and its kernel do not agree; the message names what does not."""


class NotFitted(GpulstmError, ValueError, AttributeError):
    """An estimator was asked for what it has not learnt yet."""


class NotFinite(GpulstmError, ArithmeticError):
    """A loss became infinite or not a number."""


class FormatError(GpulstmError, ValueError):
    """A file is not what it claims to be; the message says what and where."""


class TapeError(GpulstmError, RuntimeError):
    """The tape was asked for a gradient that it does not have."""


class ProcessError(GpulstmError, RuntimeError):
    """Processes that were started together cannot work together; the message says why and what to do."""


class FileExists(GpulstmError, FileExistsError):
    """A file would be overwritten that holds finished work; the message says the choices."""


def type_name(x: object) -> str:
    """The name of x's type, for messages; of another library's Tensor or Parameter, with the library's name."""
    name, library = type(x).__name__, type(x).__module__.partition(".")[0]
    return f"{library}.{name}" if name in ("Tensor", "Parameter") and library != "gpulstm" else name
