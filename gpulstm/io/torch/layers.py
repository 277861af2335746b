"""Makes layers from state dicts: kinds and sizes follow from names and shapes."""

from collections.abc import Mapping
from typing import Any

from gpulstm.errors import DTypeError, ShapeError

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_SHOWN = 8  # names in a message
# Weights that PyTorch computes from other tensors: a pattern of their names, how they are stored, and how to undo it.
_COMPUTED = (
    ("parametrizations.{}.original", "by a parametrization", "torch.nn.utils.parametrize.remove_parametrizations"),
    ("{}_g", "with weight normalization", "torch.nn.utils.remove_weight_norm"),
    ("{}_orig", "with spectral normalization or pruning", "torch.nn.utils.remove_spectral_norm or prune.remove"),
    ("{}_raw", "with a weight drop", "the weight under its own name, which is the raw one in evaluation"),
    ("_all_weight_values", "quantized", "the model before it was quantized"),
)


def from_state_dict(state_dict: Mapping[str, Any], kind: str | None, prefix: str, options: dict[str, Any]) -> Any:
    """See ``gpulstm.io.torch.from_state_dict``."""
    from gpulstm import nn

    if kind not in (None, *GATES):
        raise ShapeError(f"kind: expected one of {', '.join(GATES)}, or None, got {kind!r}")
    if not isinstance(state_dict, Mapping):
        raise DTypeError(f"state_dict: expected a dict of arrays by name, got {type(state_dict).__name__}")
    if not isinstance(prefix, str):
        raise DTypeError(f"prefix: expected a string, got {type(prefix).__name__}")
    prefix = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
    own = {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if isinstance(name, str) and name.startswith(prefix)
    }
    suffix = "" if "weight_ih" in own else "_l0"
    for name in (f"weight_ih{suffix}", f"weight_hh{suffix}"):
        if name not in own:
            raise ShapeError(f"state_dict: expected {prefix}{name}, got {_computed(own, name) or _found(state_dict)}")
    for name, value in own.items():
        if not hasattr(value, "shape"):
            raise DTypeError(f"{prefix}{name}: expected an array, got {value!r:.100}")
    for name in (f"weight_ih{suffix}", f"weight_hh{suffix}"):
        if len(own[name].shape) != 2 or not all(own[name].shape):
            raise ShapeError(f"{prefix}{name}: expected (gates*hidden, size), got {tuple(own[name].shape)}")
    sizes = _sizes(own, suffix)
    rows = own[f"weight_ih{suffix}"].shape[0]
    found = next((name for name, gates in GATES.items() if rows == gates * sizes["hidden_size"]), None)
    if found is None or kind not in (None, found):
        want = ", ".join(f"{gates}*H ({name})" for name, gates in GATES.items() if kind in (None, name))
        raise ShapeError(f"{prefix}weight_ih{suffix}: expected {want} rows for H = {sizes['hidden_size']}, got {rows}")
    options.setdefault("dtype", str(own[f"weight_ih{suffix}"].dtype).removeprefix("torch."))
    layer = getattr(nn, found if suffix else f"{found}Cell")(**sizes, **options)
    layer.load_state_dict(own)
    return layer


def _sizes(own: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """The arguments of a layer's constructor that follow from its weights."""
    projection = own.get("weight_hr_l0")
    sizes: dict[str, Any] = {
        "input_size": int(own[f"weight_ih{suffix}"].shape[1]),
        "hidden_size": int((own[f"weight_hh{suffix}"] if projection is None else projection).shape[-1]),
        "bias": f"bias_ih{suffix}" in own,
    }
    if suffix:
        sizes["num_layers"] = sum(name.startswith("weight_ih_l") and name[11:].isdecimal() for name in own)
        sizes["bidirectional"] = "weight_ih_l0_reverse" in own
    return sizes if projection is None else sizes | {"proj_size": int(projection.shape[0])}


def _computed(own: Mapping[str, Any], name: str) -> str:
    """Say what to do about a weight that PyTorch stored in another form; empty if there is no such weight."""
    for pattern, how, remedy in _COMPUTED:
        part = pattern.format(name)
        if kept := next((other for other in own if other.startswith(part)), None):
            return f"{kept}: PyTorch stored it {how}; save {remedy.replace('torch.', 'the model after torch.', 1)}"
    return ""


def _found(state_dict: Mapping[str, Any]) -> str:
    """For a message: where recurrent layers are, in this dict or in dicts inside it; else its first names."""
    if prefixes := _prefixes(state_dict):
        return f"recurrent layers under the prefixes {', '.join(map(repr, prefixes[:_SHOWN]))}"
    for key, inner in state_dict.items():
        if isinstance(inner, Mapping) and (prefixes := _prefixes(inner)):
            listed = ", ".join(map(repr, prefixes[:_SHOWN]))
            return f"a checkpoint; pass its entry [{key!r}], which has recurrent layers under the prefixes {listed}"
    return f"the names {', '.join(f'{name!s:.100}' for name in list(state_dict)[:_SHOWN])}"


def _prefixes(names: Mapping[Any, Any]) -> list[str]:
    """The prefixes of recurrent layers ("encoder.rnn.") and cells among the names."""
    texts = [name for name in names if isinstance(name, str)]
    ends = [end for end in ("weight_ih_l0", "weight_ih")]
    return [name.removesuffix(end) for name in texts for end in ends if name == end or name.endswith("." + end)]
