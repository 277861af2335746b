"""Makes tests/golden/*.npz: what torch gives for some LSTMs and a training run, for machines without torch.

    python tests/make_golden.py

Every file holds inputs, outputs and gradients in float64, and under "made_by" the versions that made them.
Arrays are named by what they are: "input.x", "parameter.weight_ih_l0", "output.h_n", "gradient.x".
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden"

# name -> (arguments of the layer, T, B or None for one sequence, states given, lengths)
LSTMS: dict[str, tuple[dict[str, Any], int, int | None, bool, tuple[int, ...] | None]] = {
    "plain": ({}, 4, 2, False, None),
    "one_step": ({}, 1, 1, True, None),
    "stacked_bidirectional_ragged": ({"num_layers": 2, "bidirectional": True}, 5, 3, True, (3, 5, 1)),
    "projected_batch_first": ({"proj_size": 2, "batch_first": True, "bidirectional": True}, 3, 2, True, None),
    "no_bias_one_sequence": ({"bias": False, "num_layers": 2}, 4, None, True, None),
}
SIZES = {"input_size": 3, "hidden_size": 5}

# The training run: from the symbols so far the next of 7 is predicted; padding of ragged rows is ignored.
SYMBOLS, WIDTH, UNITS, STEPS, IGNORED = 7, 4, 6, 10, -100
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.5, "momentum": 0.9},
    "Adam": {"lr": 0.05, "weight_decay": 0.01},
}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: with arrays this small several wait for each other, and sums keep their order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def lstm_case(name: str) -> dict[str, np.ndarray]:
    """Inputs, parameters, outputs and gradients of one row of LSTMS."""
    import torch

    options, T, B, has_states, lengths = LSTMS[name]
    torch.manual_seed(sorted(LSTMS).index(name))
    layer = torch.nn.LSTM(**SIZES, **options).double()
    batch = () if B is None else (B,)
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    leading = (*batch, T) if layer.batch_first else (T, *batch)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    inputs = {"x": normal(*leading, SIZES["input_size"])}
    if has_states:
        inputs["h_0"] = normal(rows, *batch, layer.proj_size or layer.hidden_size)
        inputs["c_0"] = normal(rows, *batch, layer.hidden_size)
    states = (inputs["h_0"], inputs["c_0"]) if has_states else None
    if lengths is None:
        output, (h_n, c_n) = layer(inputs["x"], states)
    else:
        pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
        packed, (h_n, c_n) = layer(pack(inputs["x"], torch.tensor(lengths), enforce_sorted=False), states)
        output, _ = pad(packed, total_length=T)
    outputs = {"output": output, "h_n": h_n, "c_n": c_n}
    cotangents = {key: torch.randn_like(value) for key, value in outputs.items()}
    torch.autograd.backward(list(outputs.values()), list(cotangents.values()))

    found = {f"input.{key}": value for key, value in inputs.items()}
    found |= {f"cotangent.{key}": value for key, value in cotangents.items()}
    found |= {f"output.{key}": value for key, value in outputs.items()}
    found |= {f"parameter.{key}": value for key, value in layer.named_parameters()}
    found |= {f"gradient.{key}": value.grad for key, value in (*inputs.items(), *layer.named_parameters())}
    arrays = {key: value.detach().numpy() for key, value in found.items()}
    if lengths is not None:
        arrays["input.lengths"] = np.array(lengths)
    return arrays


@one_thread()
def training_case() -> dict[str, np.ndarray]:
    """The data and first parameters of the training run, and its losses with each of OPTIMIZERS."""
    import torch

    torch.manual_seed(20)
    tokens, lengths = torch.randint(0, SYMBOLS, (9, 4)), torch.tensor([8, 5, 8, 2])
    inputs, targets = tokens[:-1], tokens[1:].clone()
    for b, length in enumerate(lengths.tolist()):
        targets[length:, b] = IGNORED
    model = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(SYMBOLS, WIDTH),
            "lstm": torch.nn.LSTM(WIDTH, UNITS, num_layers=2, bidirectional=True),
            "head": torch.nn.Linear(2 * UNITS, SYMBOLS),
        }
    ).double()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    arrays = {f"parameter.{name}": value.numpy() for name, value in start.items()}
    for name, options in OPTIMIZERS.items():
        model.load_state_dict(start)
        optimizer = getattr(torch.optim, name)(model.parameters(), **options)
        losses = []
        for _ in range(STEPS):
            x = model["embedding"](inputs)
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            output, _ = torch.nn.utils.rnn.pad_packed_sequence(model["lstm"](packed)[0], total_length=len(x))
            logits = model["head"](output).reshape(-1, SYMBOLS)
            loss = torch.nn.functional.cross_entropy(logits, targets.reshape(-1), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        arrays[f"losses.{name}"] = np.array(losses)
    return arrays | {
        "input.tokens": inputs.numpy(),
        "input.targets": targets.numpy(),
        "input.lengths": lengths.numpy(),
    }


def versions() -> str:
    """The versions that a file is made by, as JSON."""
    import torch

    return json.dumps({"torch": torch.__version__, "numpy": np.__version__})


def main() -> None:
    """Write every file anew."""
    FOLDER.mkdir(exist_ok=True)
    for name in LSTMS:
        np.savez_compressed(FOLDER / f"lstm_{name}.npz", made_by=np.array(versions()), **lstm_case(name))
    np.savez_compressed(FOLDER / "training.npz", made_by=np.array(versions()), **training_case())


if __name__ == "__main__":
    main()
