"""What several processes run in tests of gpulstm.parallel: ``mpiexec -n 2 python -m tests.parallel_runs NAME OUT ...``.

Rank 0 writes what the function NAME returns to the file OUT, as JSON; the other arguments are the function's.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import gpulstm as gl
from gpulstm import parallel
from gpulstm.data import Batches, Streams, Windows
from gpulstm.errors import ShapeError
from gpulstm.tape import backward
from tests import emulated_cuda


class Model(gl.Module):
    """Draws of every kind that a layer makes."""

    def __init__(self, dtype: str = "float64", device: str = "cpu") -> None:
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        noise = [gl.Zoneout(0.1, 0.2), gl.VariationalDropout(0.1, 0.2), gl.WeightDrop(0.1)]
        self.lstm = gl.LSTM(3, 6, num_layers=2, dropout=0.3, bidirectional=True, regularize=noise, **made)
        self.drop, self.linear = gl.Dropout(0.2), gl.Linear(12, 2, **made)

    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        y, state = self.lstm(x, state, lengths=lengths)
        return self.linear(self.drop(y)), state


def loss_of(model: Model, batch: Any, state: Any) -> Any:
    x, y = batch
    prediction, state = model(x, state)
    return gl.mse(prediction, y), state


def loss_of_windows(model: Model, batch: Any, state: Any) -> Any:
    return loss_of(model, batch, None)[0], None


def too_few(out: str) -> Any:
    """Fewer sequences than processes: fine in a validation, refused where a state is carried on."""
    gl.manual_seed(3)
    x, y = series()
    two = Streams(x[:20], 2, 4, targets=y[:20])
    trainer = gl.Trainer(model := Model(), gl.Adam(model.parameters(), lr=1e-2), loss_of)
    records = trainer.fit(Streams(x, 5, 4, targets=y), 3, validation=two, progress=False)
    try:
        trainer.fit(two, 1, progress=False)
    except ShapeError as error:
        return {**losses(records, model), "error": str(error)}
    return losses(records, model)


def again(out: str) -> Any:
    """Data sets that were looked into before, several fits in a row, an unseeded validation, a backward in the loss."""
    gl.manual_seed(3)
    x, y = series(steps=60)
    rows = [part.reshape(12, 5, -1) for part in (x, y)]

    def loss(model: Model, batch: Any, state: Any) -> Any:
        if model.training:  # a backward pass of its own, as in adversarial training
            inner, _ = model(batch[0].swapaxes(0, 1))
            (inner * inner).mean().backward()
            model.zero_grad()
        prediction, _ = model(batch[0].swapaxes(0, 1))
        return gl.mse(prediction, batch[1].swapaxes(0, 1)), None

    seed = None if parallel.rank() else 7
    batches = Batches(*rows, batch_size=5, generator=np.random.default_rng(seed))
    held_out = Batches(*rows, batch_size=5, generator=np.random.default_rng(seed))
    streams, found = Streams(x, 5, 4, targets=y), {}
    for data in (batches, held_out, streams):
        next(iter(data))
    model = Model()
    model.drop = gl.Dropout(0.2, batch_axis=1)
    trainer = gl.Trainer(model, gl.Adam(model.parameters(), lr=1e-2), loss)
    found["first"] = losses(trainer.fit(batches, 5, validation=held_out, progress=False), model)
    found["second"] = losses(trainer.fit(batches, epochs=2, progress=False), model)
    trainer = gl.Trainer(model, gl.Adam(model.parameters(), lr=1e-2), loss_of)
    found["streams"] = losses(trainer.fit(streams, 3, validation=streams, progress=False), model)
    return found


def differ(out: str, what: str) -> Any:
    """Processes that are not alike: what it says."""
    own = parallel.rank() == 1
    x, y = series(steps=60)
    x = x + 1 if own and what == "data" else x
    model = Model()
    optimizer = gl.Adam(model.parameters(), lr=1e-2)

    def change(trainer: gl.Trainer, record: dict[str, Any]) -> None:
        if own and record["step"] == 3:
            if what == "rate":
                optimizer.lr = 2e-2
            elif what == "frozen":
                model.linear.bias.requires_grad_(False)
            elif what == "parameters":
                model.linear.bias.data[...] += 1e-9
            elif what == "draws":
                gl.manual_seed(4)

    batches = Windows(x, 6, 7, targets=y, ahead=0)
    trainer = gl.Trainer(model, optimizer, loss_of_windows)
    try:
        trainer.fit(batches, 6, progress=False, callbacks=[change], log_every=1)
    except gl.ProcessError as error:
        return str(error)
    return "nothing"


def losses(records: list[dict[str, Any]], model: Any) -> dict[str, Any]:
    sums = {name: float(np.abs(gl.backend.backend_of(a).to_numpy(a)).sum()) for name, a in model.state_dict().items()}
    return {"losses": [(r["step"], r["loss"], r["val_loss"]) for r in records], "parameters": sums}


def series(*, steps: int = 97, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((steps, 3)).astype(dtype), rng.standard_normal((steps, 2)).astype(dtype)


def train(out: str, accumulate: str = "1", dtype: str = "float64", device: str = "cpu", **options: Any) -> Any:
    """Streams that carry their state, and batches of which the last is smaller than the group."""
    count, results = int(accumulate), {}
    gl.manual_seed(3)
    x, y = series(dtype=dtype)
    windows = Windows(x[:40], 8, 5, targets=y[:40], ahead=0)
    data = {
        "streams": Streams(x, 5, 4, targets=y),
        "windows": Windows(x, 6, 7, targets=y, ahead=0, generator=np.random.default_rng(5)),
    }
    for name, batches in data.items():
        model = Model(dtype, device)
        loss = loss_of if name == "streams" else loss_of_windows
        trainer = gl.Trainer(model, gl.Adam(model.parameters(), lr=1e-2), loss, clip_norm=1.0, accumulate=count)
        held_out = Streams(x[:40], 5, 4, targets=y[:40]) if name == "streams" else windows
        records = trainer.fit(batches, 12, validation=held_out, validate_every=4, progress=False, **options)
        results[name] = losses(records, model)
    return results


class FakeNccl:
    """cupy.cuda.nccl with sums over MPI: the memory of the emulated CUDA is the host's. Keeps what it was asked for."""

    NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64, available = 0, 7, 8, True
    calls: ClassVar[list[dict[str, Any]]] = []

    @staticmethod
    def get_unique_id() -> tuple[int, ...]:
        assert parallel.group().is_root
        return (7, 8, 9)

    class NcclCommunicator:
        def __init__(self, size: int, identity: tuple[int, ...], rank: int) -> None:
            assert (size, rank) == (parallel.size(), parallel.rank()) and identity == (7, 8, 9)

        def allReduce(self, source: int, target: int, count: int, kind: int, operation: int, stream: int) -> None:
            from mpi4py import MPI

            assert source == target and operation == FakeNccl.NCCL_SUM and stream
            dtype = {7: np.float32, 8: np.float64}[kind]
            memory = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(target)
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, np.frombuffer(memory, dtype))
            FakeNccl.calls.append({"count": count, "kind": kind})


def on_gpus(out: str, by: str, dtype: str = "float64") -> Any:
    """``train`` on the emulated CUDA, each process on a device of its own, by NCCL or by way of the host."""
    import cupy

    where = cupy.cuda.runtime.getDevice()
    found = train(out, "1", dtype, "cuda")
    group, model = parallel.group(), Model()
    sizes = sum(p.size for p in model.parameters())
    devices = group.gather(where)
    assert devices == list(range(group.size)), devices
    counts = [call["count"] for call in FakeNccl.calls]
    return found if by == "alone" else {**found, "by NCCL": sum(counts), "numbers of a step": sizes}


def plain_lists(out: str) -> Any:
    """Batches that do not say where their sequences are, with a ragged one, and parameters that not every step has."""
    rng = np.random.default_rng(1)
    lengths = [np.array([5, 2, 4, 1, 3]), np.array([3])]
    batches = [
        (rng.standard_normal((5, n.size, 3)), n, rng.standard_normal((5, n.size, 2))) for n in lengths
    ]  # fmt: skip

    class Pair(gl.Module):
        def __init__(self) -> None:
            self.first, self.second, self.unused = Model(), Model(), gl.Linear(2, 2, dtype="float64")

    def loss(model: Pair, batch: Any, state: Any) -> Any:
        x, n, y = batch
        # Which of the two has gradients depends on this process's part.
        part = model.first if n.sum() % 2 else model.second
        prediction, _ = part(x, None, n)
        return gl.mse(prediction, y), None

    gl.manual_seed(1)
    model = Pair()
    trainer = gl.Trainer(model, gl.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1), loss)
    records = trainer.fit(batches, 6, progress=False)
    return losses(records, model)


def labs(out: str) -> Any:
    """Every estimator, with what it draws at random."""
    usual: dict[str, Any] = {"random_state": 1, "dtype": "float64", "device": "cpu"}
    small: dict[str, Any] = {**usual, "hidden_size": 8, "epochs": 3, "batch_size": 5, "dropout": 0.2}
    rng = np.random.default_rng(2)
    t = np.arange(120)
    texts = [" ".join(rng.choice(["good", "bad", "a", "film", "not"], rng.integers(2, 9))) for _ in range(40)]
    wanted = ["yes" if "good" in text else "no" for text in texts]
    pairs = [(text, " ".join(reversed(text.split()))) for text in texts]
    waves = [rng.standard_normal(rng.integers(3000, 6000)).astype(np.float32) for _ in range(12)]
    fits = {
        "text": gl.LanguageModel(
            **usual, hidden_size=8, batch_size=4, window=8, steps=12, warmup=2, validate_every=4, num_layers=2
        ).fit("the cat sat on the mat. " * 60),
        "forecast": gl.Forecaster(**small, window=12, noise=0.1).fit(np.sin(t / 5)[:, None]),
        "sentiment": gl.SequenceClassifier(**small, class_weight="balanced").fit(texts, wanted),
        "translate": gl.Translator(**small).fit(*map(list, zip(*pairs, strict=True))),
        "speech": gl.Transcriber(**small).fit(waves, ["ab", "ba", "a", "b"] * 3),
    }
    found = {}
    for name, estimator in fits.items():
        records = getattr(estimator, "history_", [])
        found[name] = losses(records, estimator.model_)
    return found


def gradients(out: str) -> Any:
    """Sums begin before the backward pass ends: how many buckets had begun when the first layer's gradient came."""
    from gpulstm.parallel import gradients

    gradients.BUCKET = 1
    begun: list[int] = []

    class Counted(gradients.Gradients):
        def ready(self, parameter: Any) -> None:
            super().ready(parameter)
            begun.append(self._begun)

    gl.manual_seed(0)
    model = Model()
    group = parallel.group()
    counted = Counted(group, model.parameters())
    prediction, _ = model(np.ones((4, 3, 3)) * (1 + group.rank))
    from gpulstm.tape import watching

    with watching(counted.ready):
        loss = (prediction * prediction).mean()
        backward([(loss, np.ones((), np.float64))])
    own = {name: p.grad.copy() for name, p in model.named_parameters()}
    counted.sum()
    whole = {name: sum(parts) for name, parts in _gathered(group, own).items()}
    errors = [float(np.abs(p.grad - whole[name]).max()) for name, p in model.named_parameters()]
    return {"begun": begun, "error": max(errors), "parameters": len(errors)}


def _gathered(group: parallel.Group, own: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    every = group.gather(own)
    return {name: [one[name] for one in every] for name in own}


def long_run(folder: str, what: str = "", when: str = "", where: str = "-1", steps: str = "40") -> None:
    """A run in ``folder`` that goes on where it can, and in which something happens to one rank at a step."""
    group = parallel.group()
    gl.manual_seed(3)
    x, y = series()
    model = Model()
    trainer = gl.Trainer(model, gl.Adam(model.parameters(), lr=1e-2), loss_of)
    path = Path(folder)

    def happen(trainer: gl.Trainer, record: dict[str, Any]) -> None:
        if record["step"] != int(when or -1) or group.rank != int(where):
            return
        if what in ("KILL", "STOP", "TERM", "INT"):
            os.kill(os.getpid(), getattr(signal, f"SIG{what}"))
        elif what == "raise":
            raise ValueError("planted")
        elif what == "sleep":
            time.sleep(1000)
        elif what == "exit":
            os._exit(3)
        elif what == "leave":
            sys.exit(4)

    trainer.fit(
        Streams(x, 5, 4, targets=y), int(steps), checkpoint=path / "run.safetensors", checkpoint_every=3, log_every=1,
        log=path / "log.jsonl", resume=True, progress=False, callbacks=[happen],
    )  # fmt: skip
    if group.is_root:
        (path / "digest").write_text(repr(losses([], model)))


def main(name: str, out: str, *rest: str) -> None:
    if name == "on_gpus":
        emulated_cuda.prepare()
        emulated_cuda.settings().devices = 2
        if rest[0] == "nccl":
            sys.modules["cupy.cuda.nccl"] = FakeNccl  # type: ignore[assignment]
    parallel.init(timeout=float(os.environ.get("TEST_TIMEOUT", "60")), batch_axes=1)
    result = globals()[name](out, *rest)
    if result is not None and parallel.group().is_root:
        Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
