"""The language model of the text lab, and the one file that holds all of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.backend import Array, Device, backend_of
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.labs.text_corpus import Vocabulary, split
from gpulstm.nn import LSTM, Dropout, Embedding, Linear, Module
from gpulstm.tape import Tensor, no_grad

# The one key of the header: several would be written in an order that changes from run to run.
HEADER = "gpulstm"
KIND, VERSION = "text model", 1
State = tuple[Any, Any]  # (h, c), each (layers, B, hidden)


class TextModel(Module):
    """Predicts the next token: embedding, LSTM layers, dropout, a logit for every token of the vocabulary."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        embedding: int = 64,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.2,
        device: str | Device = "auto",
        dtype: Any = "float32",
        generator: np.random.Generator | None = None,
    ) -> None:
        """``dropout`` acts between the LSTM's layers and after the last. ShapeError for sizes below 1."""
        made: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        self.vocabulary = vocabulary
        self.config = {"embedding": embedding, "hidden": hidden, "layers": layers, "dropout": dropout}
        self.embedding = Embedding(len(vocabulary), embedding, **made)
        self.lstm = LSTM(embedding, hidden, layers, dropout=dropout if layers > 1 else 0.0, **made)
        self.dropout = Dropout(dropout)
        self.linear = Linear(hidden, len(vocabulary), **made)

    def forward(self, tokens: Array, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (T, B) integers -> (logits (T, B, V), state); a state of None is zeros."""
        output, state = self.lstm(self.embedding(tokens), state)
        return self.linear(self.dropout(output)), state

    def unseen(self, text: str) -> str:
        """The characters or words of the text that the model has never seen, quoted; empty without any."""
        return self.vocabulary.unseen(split(text, self.vocabulary.level))

    def prompt(self, text: str) -> np.ndarray:
        """The numbers (N,) that a text begins from, at least one: an empty prompt stands for the end of a
        line.

        Raises FormatError naming the characters that the model has never seen; unseen words become "<unk>".
        """
        if self.vocabulary.level == "char" and (unseen := self.unseen(text)):
            raise FormatError(f"prompt: want characters the model has seen, got {unseen}")
        pieces = split(text, self.vocabulary.level)
        if not pieces:
            pieces = ["\n"] if not self.vocabulary.unseen(["\n"]) else self.vocabulary.tokens[:1]
        return self.vocabulary.encode(pieces)

    def step(self, numbers: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        """Read the numbers (N,) and predict what follows: (logits (V,) in NumPy, state); -inf for "<unk>"."""
        backend = backend_of(self.linear.weight.data)
        with no_grad(), np.errstate(all="ignore"):
            logits, state = self.forward(backend.asarray(numbers[:, None]), state)
        last = backend.to_numpy(logits.data[-1, 0]).astype(np.float64)
        if self.vocabulary.level == "word":
            last[0] = -np.inf
        return last, state


def save_model(path: str | Path, model: TextModel, facts: Mapping[str, Any] | None = None) -> None:
    """Write the model, its vocabulary and configuration to one safetensors file, atomically; raises OSError.

    ``facts`` about its making (JSON values) go into the header too.
    """
    header = {
        "kind": KIND,
        "version": VERSION,
        "config": model.config,
        "level": model.vocabulary.level,
        "vocabulary": model.vocabulary.tokens,
        "facts": dict(facts or {}),
    }
    arrays = {name: backend_of(array).to_numpy(array) for name, array in model.state_dict().items()}
    save_arrays(path, arrays, {HEADER: json.dumps(header)})


def load_model(path: str | Path, device: str | Device = "auto") -> TextModel:
    """The model in a file that ``save_model`` wrote, in evaluation mode.

    Nothing in the file can run code. Raises FormatError when it is no such file, is cut short, or when its
    header tells of other sizes than its arrays have; OSError when it cannot be read.
    """
    arrays, metadata = load_arrays(path)
    header = _header(path, metadata)
    try:
        vocabulary = Vocabulary(header["level"], header["vocabulary"])
        config = {name: header["config"][name] for name in ("embedding", "hidden", "layers", "dropout")}
        dtype = _check_arrays(arrays, len(vocabulary), **config)
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise FormatError(f"{path}: want a gpulstm {KIND}: {what}") from error
    model = TextModel(vocabulary, **config, device=device, dtype=dtype)
    model.load_state_dict(arrays)
    model.eval()
    return model


def _header(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        header = json.loads(metadata.get(HEADER, "null"))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("kind") != KIND:
        kind = header.get("kind") if isinstance(header, dict) else None
        raise FormatError(f"{path}: want a gpulstm {KIND}, got {kind or 'a safetensors file of something else'}")
    if header.get("version") != VERSION:
        raise FormatError(f"{path}: want version {VERSION} of a gpulstm {KIND}, got {header.get('version')!r}")
    return header


def _check_arrays(
    arrays: Mapping[str, np.ndarray], V: int, embedding: int, hidden: int, layers: int, dropout: float
) -> Any:
    """Hold the sizes in the header against the arrays, before anything is made by them; return the dtype."""
    for name, size in (("embedding", embedding), ("hidden", hidden), ("layers", layers)):
        if type(size) is not int or size < 1:
            raise ShapeError(f"{name}: want an integer from 1 up, got {size!r}")
    if not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise ShapeError(f"dropout: want a number from 0 to 1, got {dropout!r}")
    if 4 * layers + 3 != len(arrays):  # also keeps a huge number of layers from being listed below
        raise ShapeError(f"arrays: want {4 * layers + 3} for {layers} layers, got {len(arrays)}")
    want = {"embedding.weight": (V, embedding), "linear.weight": (V, hidden), "linear.bias": (V,)}
    for k in range(layers):
        inputs = embedding if k == 0 else hidden
        want |= {f"lstm.weight_ih_l{k}": (4 * hidden, inputs), f"lstm.weight_hh_l{k}": (4 * hidden, hidden)}
        want |= {f"lstm.bias_ih_l{k}": (4 * hidden,), f"lstm.bias_hh_l{k}": (4 * hidden,)}
    for name, shape in want.items():
        if name not in arrays or arrays[name].shape != shape:
            got = arrays[name].shape if name in arrays else "none"
            raise ShapeError(f"{name}: want {shape}, got {got}")
        if not np.isfinite(arrays[name]).all():
            raise ShapeError(f"{name}: want finite numbers, got others")
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) != 1:
        raise ShapeError(f"arrays: want one dtype, got {', '.join(sorted(str(dtype) for dtype in dtypes))}")
    return dtypes.pop()
