"""Beam search, for many sentences at once, for the most probable translations."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gpulstm.backend import Backend, backend_of
from gpulstm.data import pad_sequences
from gpulstm.labs.translate.model import State, TranslationModel, log_softmax
from gpulstm.labs.translate.tokens import BEGIN, END, UNKNOWN
from gpulstm.nn.contexts import evaluation
from gpulstm.tape import no_grad

NEVER = [UNKNOWN, BEGIN]  # tokens that are never output


def penalty(length: int | np.ndarray, alpha: float) -> float | np.ndarray:
    """Return the divisor of the log-probability of ``length`` tokens: ((5 + length) / 6) ** alpha.

    This is Wu et al. 2016, eq. 14. A longer translation sums more negative terms, so without the divisor short
    translations would win. The end token counts as a token.
    """
    return ((5 + length) / 6) ** alpha


@dataclass
class Found:
    """The finished hypotheses of one sentence."""

    best: tuple[float, list[int]] = (-np.inf, [])
    count: int = 0

    def add(self, score: float, tokens: list[int]) -> None:
        self.count += 1
        if score > self.best[0]:
            self.best = (score, tokens)


@dataclass
class Beams:
    """The unfinished hypotheses: W for each of N sentences, the most probable first; rows are (sentence, rank)."""

    backend: Backend
    state: State
    width: int
    sentences: np.ndarray  # (N,): the indices of the sentences
    scores: np.ndarray = field(init=False)  # (N, W) log-probabilities
    tokens: np.ndarray = field(init=False)  # (N, W, steps)

    def __post_init__(self) -> None:
        N = len(self.sentences)
        self.scores = np.full((N, self.width), -np.inf)
        self.scores[:, 0] = 0.0  # start with one hypothesis, because all would be the same
        self.tokens = np.full((N, self.width, 1), BEGIN)

    def next(self, model: TranslationModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the 2 W best extensions per sentence: (log-probability, hypothesis, token), each (N, at most 2 W).

        There are 2 W because W of them may end, and W others must remain.
        """
        N, W = self.scores.shape
        last = self.backend.asarray(self.tokens[:, :, -1].reshape(-1))
        logits, self.state = model.step(last, self.state)
        with self.backend as on:
            log_p = self.backend.to_numpy(log_softmax(on.xp, logits)).astype(np.float64)  # the processor chooses
        log_p[:, NEVER] = -np.inf
        most = min(2 * W, log_p.shape[1])
        kept = np.argpartition(-log_p, most - 1, axis=1)[:, :most]
        ids = kept.reshape(N, -1)  # (N, W * most)
        values = np.take_along_axis(log_p, kept, axis=1).reshape(N, W, most) + self.scores[:, :, None]
        order = np.lexsort((ids, -values.reshape(N, -1)), axis=1)[
            :, : 2 * W
        ]  # ties go by id, so every device chooses alike
        return (
            np.take_along_axis(values.reshape(N, -1), order, axis=1),
            order // most,
            np.take_along_axis(ids, order, 1),
        )

    def follow(self, alive: np.ndarray, scores: np.ndarray, parents: np.ndarray, tokens: np.ndarray) -> None:
        """Keep the sentences in rows ``alive``; hypothesis (alive, W) extends ``parents`` by ``tokens``."""
        rows = alive[:, None]
        self.tokens = np.concatenate([self.tokens[rows, parents], tokens[:, :, None]], axis=2)
        self.scores = scores
        numbers = self.backend.asarray((rows * self.width + parents).reshape(-1))
        with self.backend:
            same = len(alive) == len(self.sentences)
            self.state = self.state.moved(numbers) if same else self.state.rows(numbers)
        self.sentences = self.sentences[alive]


def translate(
    model: TranslationModel,
    sources: Sequence[np.ndarray],
    beam_width: int = 5,
    length_penalty: float = 0.6,
    max_length: int = 100,
) -> list[list[int]]:
    """Return the translation of each source (T_n,), with T_n of at least 1, as token ids without the end token.

    Beam search keeps ``beam_width`` hypotheses per sentence (1 is greedy search) and returns the finished one with the
    highest log-probability divided by ``penalty``. A hypothesis of ``max_length`` tokens ends there. The search for a
    sentence stops when ``beam_width`` hypotheses have ended, or when no unfinished one can win any more.
    """
    return [tokens for _, tokens in search(model, sources, beam_width, length_penalty, max_length)]


def search(
    model: TranslationModel, sources: Sequence[np.ndarray], beam_width: int, length_penalty: float, max_length: int
) -> list[tuple[float, list[int]]]:
    """Return (score, ids) of the best translation of each source; see ``translate``."""
    backend = backend_of(model.bias.data)
    found = [Found() for _ in sources]
    with evaluation(model), no_grad():
        padded, lengths = pad_sequences(sources)
        N = len(sources)
        with backend as on:
            state = model.start(on.asarray(padded), lengths).rows(on.asarray(np.repeat(np.arange(N), beam_width)))
        beams = Beams(backend, state, beam_width, np.arange(N))
        for length in range(1, max_length + 1):
            _advance(model, beams, found, length, length_penalty, max_length)
            if len(beams.sentences) == 0:
                break
    return [one.best for one in found]


def _advance(
    model: TranslationModel, beams: Beams, found: list[Found], length: int, alpha: float, max_length: int
) -> None:
    """Extend all hypotheses by one step, and drop the sentences that are done."""
    W = beams.width
    values, parents, tokens = beams.next(model)
    scores, divisor, longest = np.full((len(values), W), -np.inf), penalty(length, alpha), penalty(max_length, alpha)
    chosen = np.zeros((2, len(values), W), np.int64)  # parents and tokens of the hypotheses that continue
    alive = []
    for n, sentence in enumerate(beams.sentences.tolist()):
        ends = (tokens[n] == END) & (
            np.arange(values.shape[1]) < W
        )  # an end counts among the W best only, so that W = 1 is greedy search
        on = np.flatnonzero((tokens[n] != END) & (values[n] > -np.inf))[:W]
        ended, one = np.flatnonzero(ends & (values[n] > -np.inf)), found[sentence]
        for k in ended:
            one.add(values[n, k] / divisor, beams.tokens[n, parents[n, k], 1:].tolist())
        if length == max_length:
            for k in on:
                one.add(values[n, k] / divisor, [*beams.tokens[n, parents[n, k], 1:].tolist(), int(tokens[n, k])])
            continue
        # The best score still possible: further tokens cost nothing, and the divisor is the largest.
        if len(on) == 0 or (one.count >= W or values[n, on[0]] / longest <= one.best[0]):
            continue
        scores[n, : len(on)] = values[n, on]
        chosen[0, n, : len(on)], chosen[1, n, : len(on)] = parents[n, on], tokens[n, on]
        alive.append(n)
    rows = np.array(alive, np.int64)
    beams.follow(rows, scores[rows], chosen[0][rows], chosen[1][rows])
