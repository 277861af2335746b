"""Files of Keras' layouts that tests make: HDF5 by h5py, archives by zipfile."""

import io
import json
import zipfile

import numpy as np

from tests.conftest import require


def written(path, build, libver="earliest"):
    """A file that h5py writes."""
    with require("h5py").File(path, "w", libver=libver) as file:
        build(file)
    return path


def layer_config(name, kind="LSTM", module="keras.layers", registered=None, **config):
    return {"class_name": kind, "module": module, "registered_name": registered, "config": {"name": name, **config}}


def with_config(path, config, weights, **more):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", config if isinstance(config, bytes) else json.dumps(config))
        file.writestr("model.weights.h5", weights)
        for name, data in more.items():
            file.writestr(name, data)


def hdf5(build):
    """The bytes of a file that h5py writes."""
    data = io.BytesIO()
    with require("h5py").File(data, "w") as file:
        build(file)
    return data.getvalue()


def legacy(path, version, layers, config=None, chunked=False, libver="earliest"):
    """A file of Keras' first layout: ``layers`` are {layer: {name of an array: array}}; ``config`` the list of
    layers of a whole model, or all of its configuration; None for weights alone."""

    def names(group, name, texts):
        parts = np.array_split(np.array(texts, "S"), 2) if chunked and len(texts) > 1 else [np.array(texts, "S")]
        for number, part in enumerate(parts):
            group.attrs[f"{name}{number}" if len(parts) > 1 else name] = part

    def build(file):
        top = file
        if config is not None:
            top = file.create_group("model_weights")
            whole = {"class_name": "Sequential", "config": {"name": "sequential", "layers": config}}
            file.attrs["model_config"] = json.dumps(config if isinstance(config, dict) else whole).encode()
        if version:
            file.attrs["keras_version"] = version.encode()
        names(top, "layer_names", list(layers))
        for layer, arrays in layers.items():
            group = top.create_group(layer)
            names(group, "weight_names", list(arrays)) if arrays else group.attrs.create("weight_names", [], dtype="f8")
            for key, array in arrays.items():
                group[key] = array

    return written(path, build, libver)
