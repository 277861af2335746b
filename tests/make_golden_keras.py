"""Makes tests/golden/keras/: files that Keras wrote, and what its layers give, for machines without Keras.

    KERAS_BACKEND=torch python tests/make_golden_keras.py

``layers.keras`` and ``layers.weights.h5`` hold one model, every layer with weights drawn anew;
``nested.keras`` a model in a model. All is float32, in which Keras multiplies matrices whatever their type.
``outputs.npz`` holds the input and the output of each layer by name, and under "made_by" the versions that
made the files.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden" / "keras"
IDS, T, B = 7, 5, 2  # symbols, steps, sequences


def draw_weights(layer: Any, rng: np.random.Generator) -> None:
    """Weights of every size, so that none is zero or alike."""
    layer.set_weights([rng.uniform(-0.9, 0.9, weight.shape) for weight in layer.get_weights()])


def layers_model(keras: Any) -> Any:
    """One layer of each kind, in a row."""
    layer = keras.layers
    steps = {"return_sequences": True}
    return keras.Sequential(
        [
            keras.Input((T,), dtype="int32"),
            layer.Embedding(IDS, 3, name="symbols"),
            layer.Bidirectional(layer.LSTM(4, **steps), name="both"),
            layer.Dense(3, use_bias=False, name="narrow"),
            layer.LSTM(4, dropout=0.1, name="first", **steps),
            layer.LSTM(4, name="second", **steps),
            layer.LSTM(3, use_bias=False, name="no_bias", **steps),
            layer.GRU(4, name="after", **steps),
            layer.GRU(3, reset_after=False, name="before", **steps),
            layer.GRU(3, reset_after=False, use_bias=False, name="before_no_bias", **steps),
            layer.SimpleRNN(4, activation="relu", name="plain", **steps),
            layer.Dense(2, name="head"),
        ],
        name="layers",
    )


def nested_model(keras: Any) -> Any:
    """A model inside another, a sum of both directions, one layer backwards, one that gpulstm has not."""
    layer = keras.layers
    steps = {"return_sequences": True}
    x = keras.Input((T, 3))
    y = layer.Bidirectional(layer.GRU(2, **steps), merge_mode="sum", name="lstm_1")(x)  # a name that misleads
    encoder = keras.Model(x, y, name="encoder")
    x = keras.Input((T, 3))
    y = layer.LSTM(2, go_backwards=True, name="lstm", **steps)(encoder(x))
    y = layer.LSTM(2, recurrent_activation="hard_sigmoid", name="hard", **steps)(y)
    y = layer.RNN([layer.LSTMCell(2), layer.GRUCell(3)], name="cells", **steps)(y)
    y = layer.LayerNormalization(name="norm")(y)
    return keras.Model(x, y, name="outer")


def outputs_by_layer(keras: Any, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """The output of every layer of a model by name; each takes what the one before gives."""
    found = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            x = keras.ops.convert_to_numpy(layer(x))
            found[layer.name] = x
    return found


def main() -> None:
    """Write every file anew."""
    import h5py
    import keras
    import torch

    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(17)
    arrays: dict[str, np.ndarray] = {}
    for name, make in (("layers", layers_model), ("nested", nested_model)):
        keras.utils.clear_session()
        model = make(keras)
        for layer in model.layers:
            draw_weights(layer, rng)
        x = rng.integers(0, IDS, (B, T)) if name == "layers" else rng.normal(size=(B, T, 3)).astype("float32")
        arrays |= {f"{name}.{key}": value for key, value in outputs_by_layer(keras, model, x).items()}
        arrays[f"{name}.x"] = x
        model.save(FOLDER / f"{name}.keras")
        if name == "layers":
            model.save_weights(FOLDER / "layers.weights.h5")
    versions = {"keras": keras.__version__, "torch": torch.__version__, "h5py": h5py.__version__}
    versions["numpy"] = np.__version__
    np.savez_compressed(FOLDER / "outputs.npz", made_by=np.array(json.dumps(versions)), **arrays)


if __name__ == "__main__":
    main()
