"""Adds to tests/golden/keras/versions.zip what one version of Keras writes: small models, their input and output.

    PYTHON tests/make_golden_keras_versions.py LABEL

PYTHON has one Keras, of any version: Keras 1 with Theano, Keras 2 with TensorFlow 1, TensorFlow 2 (with
``KERAS_OF_TENSORFLOW=1``) or Keras 3 with any backend. For each model there are LABEL/NAME.h5 (not of 3.0, which
cannot write all of them), from Keras 2.12 on LABEL/NAME.keras, and LABEL/NAME.npz with x, y and the version.
Weights are drawn anew, so that none is zero or alike. Models are not compiled: no optimizer is in the files. This
file also runs on Python 3.6.
"""

import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent / "golden" / "keras" / "versions.zip"
T, D, B, IDS = 5, 3, 2, 7
BEFORE_2 = {"units": "output_dim", "recurrent_activation": "inner_activation"}


def models(keras, version):
    """(input, layers) by name."""
    layers, rng = keras.layers, np.random.RandomState(3)
    x = rng.randn(B, T, D).astype("float32")
    ids = np.array([[3, 1, 4, 1, 0], [2, 6, 0, 0, 0]])

    def make(kind, *args, **options):
        if version < (2, 0):
            options = {BEFORE_2.get(key, key): value for key, value in options.items()}
        return getattr(layers, kind)(*args, **options)

    def both(kind, units, merge="concat", **options):
        return layers.Bidirectional(make(kind, units, **options), merge_mode=merge)

    all_steps, shape = {"return_sequences": True}, {"input_shape": (T, D)}
    length = {"input_length": T} if version < (3, 0) else {}
    found = {
        "kinds": (x, lambda: [
            make("LSTM", 2, activation="relu", name="lstm_2", **dict(all_steps, **shape)),
            make("GRU", 3, **all_steps),
            make("LSTM", 2, name="back", activation="softsign", recurrent_activation="hard_sigmoid", go_backwards=True,
                 **all_steps),
            make("SimpleRNN", 3, **all_steps),
            make("LSTM", 2, name="lstm"),
            make("Dense", 2, activation="softmax"),
        ]),
        "masked": (ids, lambda: [
            make("Embedding", IDS, 3, mask_zero=True, **length),
            both("LSTM", 2, "sum", **all_steps),
            make("Dropout", 0.5),
            make("GRU", 2, go_backwards=True, **all_steps),
            layers.TimeDistributed(make("Dense", 2, activation="tanh")),
        ]),
    }  # fmt: skip
    if version >= (2, 2):

        def nested():
            inner = [make("LSTM", 2, name="two", activation="relu", **dict(all_steps, **shape)),
                     make("BatchNormalization", name="norm"), make("LSTM", 2, name="one", **all_steps)]  # fmt: skip
            encoder = keras.models.Sequential(inner, name="encoder")
            encoder.layers[0].trainable = False
            return [encoder, both("GRU", 2, "ave", reset_after=False), make("Dense", 1)]

        found["nested"] = (x, nested)
    return found


def leaves(model):
    """The layers of a model and of those inside it."""
    return [leaf for layer in model.layers for leaf in (leaves(layer) if hasattr(layer, "layers") else [layer])]


def files(keras, text, name, x, build):
    """(name, bytes) of the files of a model."""
    version = tuple(int(part) for part in text.split(".")[:2])
    rng = np.random.RandomState(len(name))
    made = build()
    if version >= (3, 0):
        made = [keras.Input(x.shape[1:], dtype=str(x.dtype)), *made]
    model = keras.models.Sequential(made)
    for layer in leaves(model):
        # A variance is above 0.
        layer.set_weights([rng.uniform(0.1, 0.9, w.shape) * (1 if w.ndim == 1 else rng.choice([-1, 1], w.shape))
                           for w in layer.get_weights()])  # fmt: skip
    y = np.asarray(model.predict(x, verbose=0))
    arrays = io.BytesIO()
    np.savez_compressed(arrays, x=x, y=y, version=np.array(text))
    yield name + ".npz", arrays.getvalue()
    endings = [".h5"] if version != (3, 0) else []  # 3.0 cannot write all of them so
    endings += [".keras"] if version >= (2, 12) else []
    for end in endings:
        path = Path(tempfile.mkdtemp()) / (name + end)
        options = {"save_format": "keras_v3"} if version == (2, 12) and end == ".keras" else {}
        model.save(str(path), **options)
        yield path.name, path.read_bytes()


def main(label):
    """Write the files of this environment's Keras into the archive, in the place of those of that label."""
    if os.environ.get("KERAS_OF_TENSORFLOW"):
        import tensorflow

        keras = tensorflow.keras
        text = getattr(keras, "__version__", tensorflow.__version__)
    else:
        import keras

        text = keras.__version__
    kept = {}
    if TARGET.exists():
        with zipfile.ZipFile(str(TARGET)) as archive:
            kept = {name: archive.read(name) for name in archive.namelist() if not name.startswith(label + "/")}
    for name, (x, build) in models(keras, tuple(int(part) for part in text.split(".")[:2])).items():
        for file, data in files(keras, text, name, x, build):
            kept[label + "/" + file] = data
    with zipfile.ZipFile(str(TARGET), "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(kept):
            archive.writestr(zipfile.ZipInfo(file), kept[file], zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main(sys.argv[1])
