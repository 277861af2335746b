"""The exceptions: every error that gpulstm raises on purpose is a GpulstmError and also a fitting built-in error.

Messages name the argument, what was expected and what was given:
``weight_hh: expected (16, 4) = (gates*hidden, hidden), got (16, 5)``.
"""


class GpulstmError(Exception):
    """The base class of every error that gpulstm raises on purpose.

    Each subclass is also a subclass of the built-in error that fits, so ``except ValueError`` catches a ShapeError.

    >>> issubclass(gl.ShapeError, gl.GpulstmError) and issubclass(gl.ShapeError, ValueError)
    True
    """


class ShapeError(GpulstmError, ValueError):
    """Raised when an array has the wrong shape, or when a number, name or option has a value out of range.

    >>> gl.LSTM(input_size=0, hidden_size=4)
    Traceback (most recent call last):
        ...
    gpulstm.errors.ShapeError: input_size: expected an integer above 0, got 0
    """


class DTypeError(GpulstmError, TypeError):
    """Raised when an array has the wrong element type, or an argument has the wrong Python type.

    >>> gl.tanh("x")
    Traceback (most recent call last):
        ...
    gpulstm.errors.DTypeError: x: expected an array or a Tensor, got str; make one with gl.tensor
    """


class DeviceError(GpulstmError, RuntimeError):
    """Raised when arrays are on different devices, or when the requested device cannot be used.

    >>> gl.device("tpu")
    Traceback (most recent call last):
        ...
    gpulstm.errors.DeviceError: device: expected 'auto', 'cpu', 'cuda' or 'cuda:<number>', got 'tpu'
    """


class NoKernel(GpulstmError, RuntimeError):
    """Raised when the requested ``path`` cannot compute this case; the message says why and what to use instead.

    >>> gl.LSTM(2, 3, path="graph")(np.zeros((1, 1, 2), np.float32))
    Traceback (most recent call last):
        ...
    gpulstm.errors.NoKernel: path 'graph' cannot serve this lstm: CUDA kernels run on CuPy arrays...
    """


class CellError(GpulstmError, ValueError):
    """Raised when a cell's equations, their derivative and its kernel disagree; see ``gl.check_cell``.

    >>> issubclass(gl.CellError, ValueError)
    True
    """


class NotFitted(GpulstmError, ValueError, AttributeError):
    """Raised when an estimator is used before ``fit`` or ``load``.

    >>> gl.Forecaster().predict()
    Traceback (most recent call last):
        ...
    gpulstm.labs.protocol.NotFitted: Forecaster: expected a fitted one, got one before fit(); call fit() or load()
    """


class NotFinite(GpulstmError, ArithmeticError):
    """Raised when a loss or a gradient norm is infinite or not a number.

    >>> p = gl.Parameter(np.zeros(2))
    >>> p.grad = np.array([0.0, np.inf])
    >>> gl.clip_grad_norm([p], 1.0, error_if_nonfinite=True)
    Traceback (most recent call last):
        ...
    gpulstm.errors.NotFinite: norm of the gradients: expected a finite number, got inf
    """


class FormatError(GpulstmError, ValueError):
    """Raised when a file is damaged or has another format than expected; the message says what is wrong and where.

    >>> with open("model.safetensors", "wb") as file:
    ...     _ = file.write(b"not safetensors")
    >>> gl.load("model.safetensors")
    Traceback (most recent call last):
        ...
    gpulstm.errors.FormatError: model.safetensors: not a whole safetensors file...
    """


class TapeError(GpulstmError, RuntimeError):
    """Raised when ``backward`` cannot compute a gradient, for instance because nothing was recorded.

    >>> gl.tensor([1.0]).backward()
    Traceback (most recent call last):
        ...
    gpulstm.errors.TapeError: backward: expected a tensor that requires_grad, got one that does not (no_grad?)
    """


class ProcessError(GpulstmError, RuntimeError):
    """Raised when the processes of one run cannot work together; the message says why and what to do.

    >>> issubclass(gl.ProcessError, RuntimeError)
    True
    """


class FileExists(GpulstmError, FileExistsError):
    """Raised when a command would overwrite finished work; the message lists the options, such as ``--force``.

    >>> issubclass(gl.FileExists, FileExistsError)
    True
    """


def type_name(x: object) -> str:
    """The name of x's type for messages, with the library's name for another library's Tensor or Parameter."""
    name, library = type(x).__name__, type(x).__module__.partition(".")[0]
    return f"{library}.{name}" if name in ("Tensor", "Parameter") and library != "gpulstm" else name
