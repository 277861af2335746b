"""Whole training steps of two language models, in gpulstm and in torch, with the same initial weights and batches."""

from dataclasses import dataclass
from typing import Any

import numpy as np

BATCHES = 16  # different ones, again and again


@dataclass(frozen=True)
class Task:
    """Embedding, LSTM, dropout, linear, softmax cross-entropy, clipping to a norm of 1, Adam; the state is carried."""

    vocabulary: int
    embedding: int
    hidden: int
    layers: int
    batch: int
    steps: int
    dropout: float

    def weights(self) -> dict[str, np.ndarray]:
        """The first weights, under PyTorch's names."""
        generator = np.random.default_rng(0)
        shapes = {"embedding.weight": (self.vocabulary, self.embedding)}
        for k in range(self.layers):
            inputs = self.embedding if k == 0 else self.hidden
            rows = 4 * self.hidden
            shapes |= {f"lstm.weight_ih_l{k}": (rows, inputs), f"lstm.weight_hh_l{k}": (rows, self.hidden)}
            shapes |= {f"lstm.bias_ih_l{k}": (rows,), f"lstm.bias_hh_l{k}": (rows,)}
        shapes |= {"linear.weight": (self.vocabulary, self.hidden), "linear.bias": (self.vocabulary,)}
        return {name: generator.uniform(-0.05, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokens and those that follow, each (T, B), with the frequencies of a language (Zipf)."""
        generator = np.random.default_rng(1)
        p = 1 / np.arange(1, self.vocabulary + 1)
        tokens = generator.choice(self.vocabulary, (BATCHES, self.steps + 1, self.batch), p=p / p.sum())
        return [(part[:-1], part[1:]) for part in tokens]


TASKS = {
    # The text lab's default, and the small word model of Zaremba et al. 2014.
    "text lab": Task(vocabulary=100, embedding=64, hidden=256, layers=1, batch=32, steps=64, dropout=0.2),
    "word model": Task(vocabulary=10_000, embedding=200, hidden=200, layers=2, batch=20, steps=20, dropout=0.2),
    "tiny": Task(vocabulary=30, embedding=8, hidden=8, layers=2, batch=4, steps=5, dropout=0.2),
}


class Model:
    """What the worker times: ``step()`` is one training step, ``losses(n)`` are those of n steps."""

    path, note = "", ""

    def __init__(self, task: Task, dropout: float) -> None:
        self.task, self.rate = task, dropout
        self.batches = task.batches()
        self.count, self.state = 0, None
        self.make(task.weights())

    def make(self, weights: dict[str, np.ndarray]) -> None:
        """Make the model and its optimiser."""
        raise NotImplementedError

    def loss(self, inputs: np.ndarray, targets: np.ndarray) -> Any:
        """One training step, giving its loss as the library has it."""
        raise NotImplementedError

    def step(self) -> Any:
        """The next training step."""
        inputs, targets = self.batches[self.count % BATCHES]
        self.count += 1
        return self.loss(inputs, targets)

    def losses(self, n: int) -> list[float]:
        """The losses of the next n steps."""
        return [self.step().item() for _ in range(n)]

    def gpu_event(self) -> None:
        """There is no GPU in it."""


class Gpulstm(Model):
    """The text lab's own model, loss and optimiser."""

    def make(self, weights: dict[str, np.ndarray]) -> None:
        import gpulstm as gl
        from gpulstm.nn import Dropout, Embedding, Linear, Module

        task = self.task

        class Language(Module):
            def __init__(self, rate: float) -> None:
                self.embedding = Embedding(task.vocabulary, task.embedding, device="cpu")
                between = rate if task.layers > 1 else 0.0
                self.lstm = gl.LSTM(task.embedding, task.hidden, task.layers, dropout=between, device="cpu")
                self.dropout = Dropout(rate)
                self.linear = Linear(task.hidden, task.vocabulary, device="cpu")

            def forward(self, tokens: np.ndarray, state: Any) -> tuple[Any, Any]:
                output, state = self.lstm(self.embedding(tokens), state)
                return self.linear(self.dropout(output)), state

        self.gl, self.model = gl, Language(self.rate)
        self.model.load_state_dict(weights)
        self.optimizer = gl.Adam(self.model.parameters(), lr=1e-3)

    def loss(self, inputs: np.ndarray, targets: np.ndarray) -> Any:
        gl = self.gl
        self.optimizer.zero_grad()
        logits, state = self.model(inputs, self.state)
        loss = gl.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
        loss.backward()
        self.state = tuple(part.detach() for part in state)
        gl.clip_grad_norm(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss


class Torch(Model):
    """The same in torch."""

    def make(self, weights: dict[str, np.ndarray]) -> None:
        import torch

        task = self.task

        class Language(torch.nn.Module):
            def __init__(self, rate: float) -> None:
                super().__init__()
                self.embedding = torch.nn.Embedding(task.vocabulary, task.embedding)
                between = rate if task.layers > 1 else 0.0
                self.lstm = torch.nn.LSTM(task.embedding, task.hidden, task.layers, dropout=between)
                self.dropout = torch.nn.Dropout(rate)
                self.linear = torch.nn.Linear(task.hidden, task.vocabulary)

            def forward(self, tokens: Any, state: Any) -> tuple[Any, Any]:
                output, state = self.lstm(self.embedding(tokens), state)
                return self.linear(self.dropout(output)), state

        self.torch, self.model = torch, Language(self.rate)
        self.model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        # The fused and the foreach forms are torch's faster ones.
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)

    def loss(self, inputs: np.ndarray, targets: np.ndarray) -> Any:
        torch = self.torch
        self.optimizer.zero_grad()
        logits, state = self.model(torch.from_numpy(inputs), self.state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
        loss.backward()
        self.state = tuple(part.detach() for part in state)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss


MODELS = {"gpulstm": Gpulstm, "torch": Torch}
