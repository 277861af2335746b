"""A look inside a language model: one page on which every gate and state can be seen coloured over a text."""

import base64
import json
from importlib import resources
from typing import Any

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.errors import FormatError, ShapeError
from gpulstm.functional import softmax
from gpulstm.labs.text_model import TextModel
from gpulstm.nn.contexts import evaluation
from gpulstm.tape import no_grad

MOST = 4_000_000  # values in a page, a byte each
LIKELY = 5  # predicted tokens that are shown
LEVELS = 127  # steps from 0 to the largest value, of either sign
VALUES = {
    "i": "input gate", "f": "forget gate", "g": "candidate", "o": "output gate", "h": "hidden state", "c": "cell state",
}  # fmt: skip


def inspect(model: TextModel, text: str) -> str:
    """An HTML page, with all that it needs inside: the text, coloured by a unit of a gate or state of a layer that is
    picked on the page, and the tokens that the model predicts after each.

    Raises FormatError for a text without a token, for characters that the model has never seen, and for a text so long
    that the page would hold more than 4 million values.
    """
    pieces = list(model.vocabulary.split(text))
    if not pieces:
        raise FormatError("text: expected at least one token, got an empty text")
    layers, hidden = model.config["layers"], model.config["hidden"]
    if (size := len(pieces) * layers * hidden * len(VALUES)) > MOST:
        most = MOST * len(pieces) // size
        raise FormatError(f"text: expected at most {most:,} tokens for a model of this size, got {len(pieces):,}")
    traced, predictions = _traced(model, model.prompt(text), pieces)
    data = {
        "tokens": pieces, "predictions": predictions, "layers": layers, "hidden": hidden,
        "names": VALUES, "values": {name: _packed(values) for name, values in traced.items()},
    }  # fmt: skip
    template = resources.files("gpulstm.labs").joinpath("inspect.html").read_text(encoding="utf-8")
    # "<" could end the script in which the data stand.
    return template.replace("/*DATA*/null", json.dumps(data).replace("<", "\\u003c"))


def _traced(model: TextModel, numbers: np.ndarray, pieces: list[str]) -> tuple[dict[str, np.ndarray], list[Any]]:
    """The gates and states (T, H) by name and layer, and the likeliest tokens after each with their probabilities."""
    backend = backend_of(model.linear.weight.data)
    with evaluation(model), no_grad():
        tokens = backend.asarray(numbers[:, None])
        logits, _ = model(tokens)
        traced = model.lstm.trace(model.embedding(tokens))
        probabilities = backend.to_numpy(softmax(logits.data[:, 0])[0]).astype(np.float64)
    if not np.isfinite(probabilities).all():
        raise ShapeError("model: expected finite probabilities, got others; its weights are too large for its type")
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :LIKELY]
    predictions = [
        [[model.vocabulary.decode([n]), round(float(p[n]), 4)] for n in row]
        for row, p in zip(best, probabilities, strict=True)
    ]
    return {name: values[:, 0] for name, values in traced.items()}, predictions


def _packed(values: np.ndarray) -> dict[str, Any]:
    """Values (T, H) as bytes in base64: the share of ``most``, in 127 steps of either sign.

    ``most`` is 1 for what never passes 1, as gates and hidden states do, else the largest absolute value of each unit.
    """
    most = np.ones(values.shape[1]) if np.abs(values).max(initial=0) <= 1 else np.abs(values).max(axis=0)
    most[most == 0] = 1
    steps = np.round(values / most * LEVELS).astype(np.int8)
    return {"most": [float(f"{m:.6g}") for m in most], "data": base64.b64encode(steps.tobytes()).decode()}
