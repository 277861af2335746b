"""A network that learns sequences of integers."""

from collections.abc import Sequence

import numpy as np

from gpulstm.backend import Device
from gpulstm.clip import clip_grad_value
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.nn import LSTM, Linear, cross_entropy
from gpulstm.nn.module import check_sizes
from gpulstm.optim import Adagrad
from gpulstm.random import as_generator
from gpulstm.tape import Tensor, no_grad, tensor


class LSTM_RNN:
    """An LSTM that learns to predict the next integer of a sequence.

    Its input is one-hot, and its gates have no biases. It is trained with softmax cross-entropy, AdaGrad, and truncated
    backpropagation over windows of 200 steps with a carried state. ``lr`` is AdaGrad's learning rate. Inputs are
    integers below ``in_dim``, targets below ``out_dim``.

    Raises ShapeError for sizes below 1.

    >>> model = gl.classic.LSTM_RNN(0.1, in_dim=3, h_dim=4, out_dim=3)
    >>> len(model.train(2, [0, 1, 2, 0], [1, 2, 0, 1]))
    2
    """

    WINDOW = 200  # steps
    CLIP = 5.0  # elements of the gradient are clipped to this magnitude

    def __init__(
        self, lr: float, in_dim: int, h_dim: int, out_dim: int, device: "str | Device | None" = None,
        generator: np.random.Generator | None = None,
    ) -> None:  # fmt: skip
        check_sizes(in_dim=in_dim, h_dim=h_dim, out_dim=out_dim)
        self.in_dim, self.out_dim = in_dim, out_dim
        self.generator = as_generator(generator)
        self.lstm = LSTM(in_dim, h_dim, bias=False, device=device, generator=self.generator)
        self.head = Linear(h_dim, out_dim, device=device, generator=self.generator)
        self.parameters = [*self.lstm.parameters(), *self.head.parameters()]
        self.optimizer = Adagrad(self.parameters, lr=lr)

    def train(self, iterations: int, inputs: Sequence[int], targets: Sequence[int]) -> list[float]:
        """Train for ``iterations`` passes over the two lists; return the mean loss of every pass, in nats.

        Raises ShapeError for lists of different lengths, empty ones, or integers out of range.
        """
        x, y = self._integers("inputs", inputs, self.in_dim), self._integers("targets", targets, self.out_dim)
        if len(x) != len(y) or len(x) == 0:
            raise ShapeError(f"targets: expected {len(x)}, as many as inputs, and at least one, got {len(y)}")
        losses = []
        for _ in range(iterations):
            total, states = 0.0, None
            for start in range(0, len(x), self.WINDOW):
                window = slice(start, start + self.WINDOW)
                output, states = self.lstm(self._one_hot(x[window]), states)
                states = tuple(state.detach() for state in states)
                loss = cross_entropy(self.head(output), tensor(y[window], device=self.lstm.device))
                self.optimizer.zero_grad()
                loss.backward()
                clip_grad_value(self.parameters, self.CLIP)
                self.optimizer.step()
                total += loss.item() * len(y[window])
            losses.append(total / len(y))
        return losses

    def sample(self, first: int | Sequence[int], length: int, temperature: float = 1.0) -> list[int]:
        """Sample ``length`` integers that follow ``first``, one integer or several.

        Temperature 0 takes the most likely one each time. Each integer is the next input, so ``in_dim`` must equal
        ``out_dim``. Raises ShapeError otherwise, and for integers out of range.
        """
        if self.in_dim != self.out_dim:
            raise ShapeError(f"sample: expected in_dim = out_dim, got {self.in_dim} and {self.out_dim}")
        start = [first] if isinstance(first, int | np.integer) else list(first)
        x, states, drawn = self._integers("first", start, self.in_dim), None, []
        with no_grad():
            for _ in range(length):
                output, states = self.lstm(self._one_hot(x), states)
                logits = self.head(output[-1]).numpy().astype(np.float64)
                x = np.array([self._draw(logits, temperature)])
                drawn.append(int(x[0]))
        return drawn

    def _draw(self, logits: np.ndarray, temperature: float) -> int:
        if temperature == 0:
            return int(logits.argmax())
        chances = np.exp((logits - logits.max()) / temperature)
        return int(self.generator.choice(self.out_dim, p=chances / chances.sum()))

    def _one_hot(self, x: np.ndarray) -> Tensor:
        return tensor(np.eye(self.in_dim, dtype=np.float32)[x], device=self.lstm.device)

    @staticmethod
    def _integers(name: str, values: Sequence[int], size: int) -> np.ndarray:
        array = np.asarray(values)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise DTypeError(f"{name}: expected a list of integers, got {array.dtype} of shape {array.shape}")
        if array.size and not 0 <= array.min() <= array.max() < size:
            raise ShapeError(f"{name}: expected integers from 0 to {size - 1}, got {array.min()}..{array.max()}")
        return array.astype(np.int64)
