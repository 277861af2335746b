"""Looks inside a language model: makes a web page that colors a text by the values of the gates and states."""

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

MOST = 4_000_000  # largest number of values in a page, one byte each
LIKELY = 5  # number of predicted tokens to show
LEVELS = 127  # quantization steps from 0 to the largest absolute value
VALUES = {
    "i": "input gate", "f": "forget gate", "g": "candidate", "o": "output gate", "h": "hidden state", "c": "cell state",
}  # fmt: skip


def inspect(model: TextModel, text: str) -> str:
    """Return an HTML page that colors the text by the values of one unit of a gate or a state.

    The reader selects the layer, the gate or state, and the unit on the page. The page also shows the tokens that the
    model predicts after each token. It needs no other file.

    Raises FormatError for a text without a token, for characters that are not in the vocabulary, and for a text so long
    that the page would have more than 4 million values.
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
    # "</script>" in the text would end the script that contains the data.
    return template.replace("/*DATA*/null", json.dumps(data).replace("<", "\\u003c"))


def _traced(model: TextModel, numbers: np.ndarray, pieces: list[str]) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Return the gates and states (T, H) by name and layer, and the most likely next tokens with probabilities."""
    backend = backend_of(model.linear.weight.data)
    with evaluation(model), no_grad():
        tokens = backend.asarray(numbers[:, None])
        logits, _ = model(tokens)
        traced = model.lstm.trace(model.embedding(tokens))
        probabilities = backend.to_numpy(softmax(logits.data[:, 0])[0]).astype(np.float64)
    if not np.isfinite(probabilities).all():
        raise ShapeError("model: expected finite probabilities, got infinite or NaN; the weights overflow its type")
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :LIKELY]
    predictions = [
        [[model.vocabulary.decode([n]), round(float(p[n]), 4)] for n in row]
        for row, p in zip(best, probabilities, strict=True)
    ]
    return {name: values[:, 0] for name, values in traced.items()}, predictions


def _packed(values: np.ndarray) -> dict[str, Any]:
    """Quantize values (T, H) to signed bytes, relative to ``most``, and encode them in base64.

    ``most`` is 1 if no absolute value is above 1, as for gates and hidden states. Otherwise it is the largest absolute
    value of each unit.
    """
    most = np.ones(values.shape[1]) if np.abs(values).max(initial=0) <= 1 else np.abs(values).max(axis=0)
    most[most == 0] = 1
    steps = np.round(values / most * LEVELS).astype(np.int8)
    return {"most": [float(f"{m:.6g}") for m in most], "data": base64.b64encode(steps.tobytes()).decode()}
