"""Layers and a training run against torch's numbers in tests/golden/, on machines with torch and without."""

import json

import numpy as np
import pytest

import gpulstm as gl
from tests import make_golden
from tests.make_golden import FOLDER, IGNORED, LSTMS, OPTIMIZERS, SIZES, STEPS, SYMBOLS, UNITS, WIDTH
from tests.tolerances import assert_close

# Ten steps of an optimiser carry the rounding of each on to the next.
LOSSES = {"float64": 1e-9, "float32": 1e-4}


def load(name):
    """The arrays of a golden file, as groups: {"input": {"x": ...}, ...}."""
    groups = {}
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        assert set(json.loads(str(file["made_by"]))) == {"torch", "numpy"}
        for key in file.files:
            group, _, rest = key.partition(".")
            groups.setdefault(group, {})[rest] = file[key]
    return groups


def compare_lstm(device, golden, options):
    """Outputs and every gradient of the layer with the golden parameters."""
    layer = gl.LSTM(**SIZES, **options, device=device.name, dtype="float64")
    layer.load_state_dict(golden["parameter"])
    lengths = golden["input"].get("lengths")
    names = [name for name in golden["input"] if name != "lengths"]
    inputs = {name: gl.Tensor(device.asarray(golden["input"][name]), requires_grad=True) for name in names}
    states = (inputs["h_0"], inputs["c_0"]) if "h_0" in inputs else None
    output, (h_n, c_n) = layer(inputs["x"], states, lengths=lengths)
    outputs = {"output": output, "h_n": h_n, "c_n": c_n}
    terms = [(value * device.asarray(golden["cotangent"][name])).sum() for name, value in outputs.items()]
    (terms[0] + terms[1] + terms[2]).backward()
    for name, value in outputs.items():
        assert_close(value, golden["output"][name], name=name)
    leaves = {**inputs, **dict(layer.named_parameters())}
    assert leaves.keys() == golden["gradient"].keys()
    for name, leaf in leaves.items():
        assert_close(device.to_numpy(leaf.grad), golden["gradient"][name], name=f"gradient of {name}")


@pytest.mark.parametrize("name", LSTMS)
def test_layers_give_the_golden_numbers(device, name):
    compare_lstm(device, load(f"lstm_{name}"), LSTMS[name][0])


def swap_gates(golden):
    weight = golden["parameter"]["weight_hh_l0"]
    i, f, g, o = np.split(weight, 4)
    weight[...] = np.concatenate([i, g, f, o])


FAULTS = {
    "two gates swapped": swap_gates,
    "no gradient through c_n": lambda golden: golden["cotangent"]["c_n"].fill(0),
    "no gradient through y": lambda golden: golden["cotangent"]["output"].fill(0),
    "a gradient of zero": lambda golden: golden["gradient"]["bias_ih_l0"].__setitem__(3, 0),
    "one step more": lambda golden: golden["input"]["lengths"].__setitem__(0, 4),
    "one number off": lambda golden: golden["output"]["h_n"].__setitem__((0, 0, 0), 0.1),
    "first states forgotten": lambda golden: [golden["input"].pop(n) for n in ("h_0", "c_0")],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_sees_a_fault(fault):
    name = "stacked_bidirectional_ragged"
    golden = load(f"lstm_{name}")
    compare_lstm(gl.device("cpu").backend, golden, LSTMS[name][0])
    FAULTS[fault](golden)
    with pytest.raises(AssertionError):
        compare_lstm(gl.device("cpu").backend, golden, LSTMS[name][0])


class Model(gl.Module):
    """The model of the training run."""

    def __init__(self, device, dtype):
        made = {"device": device.name, "dtype": dtype}
        self.embedding = gl.Embedding(SYMBOLS, WIDTH, **made)
        self.lstm = gl.LSTM(WIDTH, UNITS, num_layers=2, bidirectional=True, **made)
        self.head = gl.Linear(2 * UNITS, SYMBOLS, **made)

    def forward(self, tokens, lengths):
        output, _ = self.lstm(self.embedding(tokens), lengths=lengths)
        return self.head(output)


def train(device, golden, optimizer, dtype, clear=True):
    """The losses of the training run."""
    model = Model(device, dtype)
    model.load_state_dict(golden["parameter"])
    optimizer = getattr(gl, optimizer)(model.parameters(), **OPTIMIZERS[optimizer])
    tokens, targets = (device.asarray(golden["input"][name]) for name in ("tokens", "targets"))
    losses = []
    for _ in range(STEPS):
        logits = model(tokens, golden["input"]["lengths"]).reshape(-1, SYMBOLS)
        loss = gl.cross_entropy(logits, targets.reshape(-1), ignore_index=IGNORED)
        if clear:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


@pytest.mark.parametrize("dtype", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ten_steps_of_training_give_torchs_losses(device, optimizer, dtype):
    golden = load("training")
    losses = train(device, golden, optimizer, dtype)
    assert_close(losses, golden["losses"][optimizer], rtol=LOSSES[dtype])
    assert losses[0] - losses.min() > 0.15  # and something was learnt


def test_the_comparison_of_losses_sees_a_fault(monkeypatch):
    golden, cpu = load("training"), gl.device("cpu").backend
    want = golden["losses"]["SGD"]

    def differs(**changes):
        with pytest.raises(AssertionError):
            assert_close(train(cpu, golden, "SGD", "float64", **changes), want, rtol=LOSSES["float64"])

    differs(clear=False)  # gradients of earlier steps are added
    with monkeypatch.context() as patch:
        patch.setitem(OPTIMIZERS, "SGD", {"lr": 0.5, "momentum": 0.899})
        differs()
    golden["parameter"]["lstm.weight_hh_l1_reverse"][0, 0] += 1e-3
    differs()


@pytest.mark.oracle
@pytest.mark.parametrize("name", [*LSTMS, "training"])
def test_torch_still_gives_the_golden_numbers(name):
    """The live oracle: what the script makes now is what the files hold."""
    made = make_golden.training_case() if name == "training" else make_golden.lstm_case(name)
    with np.load(FOLDER / f"{'' if name == 'training' else 'lstm_'}{name}.npz", allow_pickle=False) as file:
        assert {*made, "made_by"} == set(file.files)
        for key, value in made.items():
            assert_close(value, file[key], name=key, rtol=1e-10)


def test_the_files_are_small():
    files = [file for file in FOLDER.iterdir() if file.is_file()]
    assert {file.suffix for file in files} == {".npz"} and len(files) == len(LSTMS) + 1
    assert sum(file.stat().st_size for file in files) < 100_000
