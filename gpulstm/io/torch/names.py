"""What the names in a file of PyTorch stand for: only these tables decide; nothing is imported by its name."""

from collections.abc import Callable
from typing import Any

from gpulstm.errors import FormatError, GpulstmError
from gpulstm.io.torch import dtypes
from gpulstm.io.torch.numpy_values import TYPES, NumPyValues
from gpulstm.io.torch.plain_values import PlainValues
from gpulstm.io.torch.rebuild import WITHOUT_ARRAY, Rebuild
from gpulstm.io.torch.tensors import Tensors
from gpulstm.io.torch.unread import Named, Refused, Unfinished, Unread, modern

# Kinds of quantization, layouts and memory formats are read as strings.
_TEXTS = {
    f"torch.{name}"
    for name in (
        "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
        "per_channel_affine_float_qparams", "strided", "sparse_coo", "contiguous_format", "channels_last",
        "channels_last_3d", "preserve_format",
    )
}  # fmt: skip
# No data needs these: a file that names one is malicious. It is refused, although nothing would be run.
_HARMFUL_MODULES = {"os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "pty", "importlib", "runpy", "ctypes"}
_HARMFUL = {f"builtins.{name}" for name in ("eval", "exec", "compile", "open", "__import__", "input", "breakpoint")}
_HARMFUL |= {"io.open", "_io.open"}


class TorchNames:
    """The values and calls that files of PyTorch name, for ``unpickle``; all other names become Unread."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors, self.rebuild = tensors, Rebuild(tensors)
        self.calls: dict[str, Callable[..., Any]] = {
            **PlainValues(tensors.budget).calls,
            **NumPyValues(tensors.budget).calls,
            **self.rebuild.calls,
            "copyreg._reconstructor": self._old_object,
            "copyreg.__newobj__": self._new_object,
        }

    def named(self, text: str) -> Any:
        """For ``unpickle``: the value of a name."""
        name = modern(text)
        if name.partition(".")[0] in _HARMFUL_MODULES or name in _HARMFUL:
            raise FormatError(f"expected only data, got {text!r}: the file was made to run a command; it was not run")
        if name in dtypes.NAMES:
            return dtypes.as_value(name)
        return name if name in _TEXTS else TYPES.get(name) or Named(text)

    def call(self, name: Unread, arguments: tuple[Any, ...]) -> Any:
        """For ``unpickle``: the result of calling a name with arguments."""
        text = modern(name.name)
        if not isinstance(name, Named) or (text not in self.calls and text not in WITHOUT_ARRAY):
            return Unread(name.name, arguments)
        if text in WITHOUT_ARRAY:
            return Refused(name.name, (WITHOUT_ARRAY[text],))
        return _guarded(text, self.calls[text], *arguments)

    def finish(self, target: Unfinished, state: Any) -> Any:
        """For ``unpickle``: the value that follows from an object's state, or None if it stays unread."""
        return _guarded(target.name, target.finish, state)

    def persistent(self, identity: Any) -> Any:
        """For ``unpickle``: the storage that a tuple ("storage", kind, key, device, length) refers to.

        In old files a part of the storage may follow, and there may also be ("module", class, file, source).
        """
        if type(identity) is not tuple or not identity or type(identity[0]) is not str:
            raise FormatError("expected the name of a storage, got something else")
        if len(identity) == 4 and identity[0] == "module":
            return identity[1]
        if len(identity) not in (5, 6) or identity[0] != "storage":
            raise FormatError("expected the name of a storage, got something else")
        _, kind, key, _, length, *view = identity
        return self.tensors.storage(kind, key, length, *view)

    def _old_object(self, kind: Any, *_: Any) -> Any:
        if not isinstance(kind, Unread):
            raise ValueError
        return Unread(kind.name)

    def _new_object(self, kind: Any, *arguments: Any) -> Any:
        if not isinstance(kind, Unread) or modern(kind.name).startswith("copyreg."):
            raise ValueError
        return self.call(kind, arguments)


def _guarded(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function; raises FormatError if it cannot take the arguments."""
    try:
        return function(*arguments)
    except GpulstmError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(f"expected the arguments that torch.save writes for {name}, got others") from error
