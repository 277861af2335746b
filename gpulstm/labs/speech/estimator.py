"""Transcriber: transcribes recordings to text; a scikit-learn-style estimator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from gpulstm import checks, random
from gpulstm.backend import backend_of
from gpulstm.data import Passes, pad_sequences
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.labs.estimator import Estimator, Run, whole_or_not_at_all
from gpulstm.labs.inputs import digest_of
from gpulstm.labs.speech.decode import beam_search, greedy
from gpulstm.labs.speech.features import HOP, frames_in, mel_filters, top, transform_size
from gpulstm.labs.speech.inputs import joined, split, steps_needed, texts_in, waves_in
from gpulstm.labs.speech.model import SpeechModel
from gpulstm.labs.speech.rates import word_error_rate
from gpulstm.labs.speech.utterances import Hearing, Utterances
from gpulstm.labs.speech.wave import RATES
from gpulstm.nn import Module, ctc_loss
from gpulstm.nn.contexts import evaluation
from gpulstm.tape import no_grad

BLOCK = 32  # waves transcribed in one batch
MOST_STACKED = 100
# Takes the feature settings, the token numbers and a generator; returns the training and the validation data.
Parts = Callable[[Hearing, Mapping[str, int], np.random.Generator], tuple[Passes, Passes | None]]


@dataclass(kw_only=True, eq=False, repr=False)
class Transcriber(Estimator):
    """Transcribes recordings to text: log-mel features, bidirectional LSTM layers, and CTC (Graves et al. 2006).

    Train on waves and their texts with ``fit``; ``predict`` returns the texts of other waves.

    >>> rng = np.random.default_rng(0)
    >>> def whistled(text):                                            # a low tone for a, a high one for b
    ...     tones = [np.sin(np.arange(1200) * {"a": 0.3, "b": 0.9}[c]) for c in text]
    ...     return np.concatenate([np.concatenate([tone, np.zeros(600)]) for tone in tones])
    >>> texts = ["".join(rng.choice(["a", "b"], rng.integers(1, 5))) for _ in range(60)]
    >>> transcriber = Transcriber(hidden_size=16, num_layers=1, epochs=30, learning_rate=1e-2, random_state=0)
    >>> transcriber = transcriber.fit([whistled(text) for text in texts], texts)
    >>> transcriber.predict([whistled("abba"), whistled("b")])
    ['abba', 'b']

    In ``fit(X, y)``, X is a list of waves, arrays (N_k,) of samples at ``sample_rate``, and y the list of their texts.
    Waves are scaled to equal power, so their loudness does not matter. ``predict(X)`` returns texts, ``score(X, y)`` is
    1 - the word error rate. ``gpulstm.labs.speech.read_wave`` reads WAV files.

    sample_rate
        Samples per second of every wave.
    level
        "char" or "word": whether tokens are the characters or the words of the training texts.
    beam_width
        Number of hypotheses that prefix beam search keeps; 1 takes the most probable class of each step (greedy).
    bands, low, high
        Number of mel bands, and their lowest and highest frequency in Hz; high=None means 97.5 % of half the sample
        rate.
    stack
        Number of frames (one every 10 ms) that the LSTM reads as one step.
    noise
        White noise added in training: the lowest and the highest level, in dB relative to a wave's power; None adds
        none.
    speed
        Training changes the speed of a wave at random by up to this share: 0.1 is 10 %.
    warp
        Training shifts the mel bands at random by up to this share of their frequencies.

    Raises ShapeError or DTypeError for invalid data and parameters, NotFitted before ``fit``. The other parameters are
    those of ``Estimator``. After ``fit``, ``tokens_`` lists the tokens of the classes from 1 on; class 0 is the blank.
    """

    sample_rate: int = 8000
    level: str = "char"
    beam_width: int = 1
    bands: int = 20
    low: float = 60.0
    high: float | None = None
    stack: int = 3
    noise: tuple[float, float] | None = (-60.0, -15.0)
    speed: float = 0.1
    warp: float = 0.1

    hidden_size: int = 128
    num_layers: int = 2
    dropout: float = 0.3
    batch_size: int = 16
    learning_rate: float = 3e-3

    kind: ClassVar[str] = "transcriber"
    free: ClassVar = ("beam_width",)
    made_of: ClassVar = ("sample_rate", "level", "bands", "low", "high", "stack")

    @whole_or_not_at_all
    def fit(self, X: Any, y: Any, *, run: Run | None = None) -> Self:
        """Train on the waves X and their texts y, as the class describes; returns self.

        ``run`` is for commands: files, checkpoints, progress. Raises ShapeError for invalid shapes and for a wave that
        is too short for its text; DTypeError for waves that are not numbers and texts that are not strings.
        """
        self.check_params()
        waves = waves_in(X, self.dtype)
        texts = texts_in(y, len(waves))
        self.check_fits(waves, texts, [f"X[{k}]" for k in range(len(waves))])

        def parts(
            hearing: Hearing, numbers: Mapping[str, int], generator: np.random.Generator
        ) -> tuple[Utterances, Utterances | None]:
            targets = [np.array([numbers[t] for t in split(text, self.level)], np.int64) for text in texts]
            order = generator.permutation(len(waves)).tolist()
            held = min(round(self.validation_fraction * len(order)), len(order) - 1)

            def part(chosen: list[int], batch_size: int, drawn: np.random.Generator | None) -> Utterances:
                some = [waves[n] for n in chosen], [targets[n] for n in chosen]
                return Utterances(hearing, *some, batch_size, drawn)

            validation = part(order[:held], BLOCK, None) if held else None
            return part(order[held:], self.batch_size, generator), validation

        tokens = sorted({token for text in texts for token in split(text, self.level)})
        return self.learn(tokens, parts, digest_of(waves, texts), run)

    def learn(self, tokens: Sequence[str], parts: Parts, digest: str, run: Run | None = None) -> Self:
        """Train on your own data sets, with batches like those of ``Utterances``; returns self.

        ``parts(hearing, numbers, generator)`` returns the training data and the validation data (or None). ``hearing``
        computes the features of a wave; ``numbers`` maps each token to its class. ``digest`` identifies the data when a
        run is resumed. Raises ShapeError if there are no tokens.
        """
        self.check_params()
        if not tokens:
            raise ShapeError(f"y: expected texts with at least one {self.level}, got none")
        self.tokens_ = list(tokens)
        numbers = {token: n for n, token in enumerate(self.tokens_, 1)}
        generator = self._generator()
        with random.using(generator):
            model = self._new_model()
            training, validation = parts(self._hearing(), numbers, generator)
            self._train(model, _loss, training, validation, digest, run, tokens=_sequences_in)
        return self

    def predict(self, X: Any) -> list[str]:
        """Return the texts of the waves X, a list of strings.

        Raises NotFitted before ``fit``, and ShapeError or DTypeError for anything but waves.
        """
        return [self._text(log_probs) for log_probs in self.predict_log_proba(X)]

    def predict_log_proba(self, X: Any) -> list[np.ndarray]:
        """Return the log-probabilities of each wave, a list of arrays (steps, classes); class 0 is the blank.

        A step lasts ``seconds_a_step``. ``gl.plot.alignment`` draws the log-probabilities. Raises as ``predict`` does.
        """
        self.check_is_fitted()
        waves, hearing = waves_in(X, self.dtype), self._hearing()
        model, backend = self.model_, self._backend()
        found: dict[int, np.ndarray] = {}
        order = sorted(range(len(waves)), key=lambda n: len(waves[n]))  # batches of similar lengths
        with evaluation(model), no_grad():
            for start in range(0, len(order), BLOCK):
                numbers = order[start : start + BLOCK]
                steps, lengths = pad_sequences([hearing.steps(waves[n]) for n in numbers])
                log_probs = backend.to_numpy(model(backend.asarray(steps), lengths).data)
                found |= {n: log_probs[: lengths[b], b].copy() for b, n in enumerate(numbers)}
        return [found[n] for n in range(len(waves))]

    def score(self, X: Any, y: Any) -> float:
        """Return 1 - the word error rate of ``predict(X)`` against y; below 0 if the errors outnumber the words."""
        texts = texts_in(y, len(waves_in(X, self.dtype)))
        return 1 - word_error_rate(self.predict(X), texts)

    @property
    def seconds_a_step(self) -> float:
        """Seconds from one step of ``predict_log_proba`` to the next."""
        return HOP * self.stack

    def check_fits(self, waves: Sequence[np.ndarray], texts: Sequence[str], names: Sequence[str]) -> None:
        """Raise ShapeError, with the wave's name, for a wave with fewer steps than CTC needs for its text."""
        for name, wave, text in zip(names, waves, texts, strict=True):
            tokens = split(text, self.level)
            steps = -(-frames_in(len(wave), self.sample_rate) // self.stack)
            if steps < (needed := steps_needed(tokens)):
                raise ShapeError(
                    f"{name}: expected at least {needed} steps of {self.seconds_a_step:g} s for a text of "
                    f"{len(tokens)} {self.level}s, got {steps} ({len(wave)} samples); a smaller stack makes more steps"
                )

    # -- computing -------------------------------------------------------------------------------------------

    def check_params(self) -> None:
        """Raise ShapeError or DTypeError for an invalid parameter."""
        super().check_params()
        checks.integer("sample_rate", self.sample_rate, RATES[0], RATES[1] + 1, f"from {RATES[0]:,} to {RATES[1]:,} Hz")
        checks.choice("level", self.level, ("char", "word"))
        checks.count("beam_width", self.beam_width, 1)
        checks.integer("stack", self.stack, 1, MOST_STACKED + 1)
        for name, most in (("speed", 0.5), ("warp", 0.5)):
            checks.number(name, getattr(self, name), most=most)
        if self.noise is not None:
            if not isinstance(self.noise, tuple | list) or len(self.noise) != 2:
                raise DTypeError(f"noise: expected None or two levels in dB, e.g. (-60, -15), got {self.noise!r}")
            low, high = (checks.number("noise", level, least=-300, most=60) for level in self.noise)
            if low > high:
                raise ShapeError(f"noise: expected the lower level first, got {self.noise}")
        checks.integer("bands", self.bands, 1, 1025)
        checks.number("low", self.low)
        if self.high is not None:
            checks.number("high", self.high)
        mel_filters(self.bands, transform_size(self.sample_rate), self.sample_rate, self.low, self.high)

    def _hearing(self) -> Hearing:
        high = top(self.sample_rate) if self.high is None else self.high
        noise = None if self.noise is None else (self.noise[0], self.noise[1])
        return Hearing(self.sample_rate, self.bands, self.low, high, self.stack, noise, self.speed, self.warp)

    def _new_model(self) -> SpeechModel:
        return SpeechModel(
            self.bands * self.stack,
            len(self.tokens_) + 1,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
            **self._made(),
        )

    def _text(self, log_probs: np.ndarray) -> str:
        classes = greedy(log_probs) if self.beam_width == 1 else beam_search(log_probs, self.beam_width)[0]
        return joined([self.tokens_[c - 1] for c in classes], self.level)

    # -- files -----------------------------------------------------------------------------------------------

    def _fitted(self) -> dict[str, Any]:
        return {"tokens": self.tokens_}

    def _restore(self, fitted: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Module:
        tokens = fitted["tokens"]
        if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) and t for t in tokens):
            raise ShapeError(f"tokens: expected a list of strings, got {tokens!r:.60}")
        if len(set(tokens)) < len(tokens):
            raise ShapeError("tokens: expected different tokens, got one twice")
        self.tokens_ = tokens
        sizes: dict[str, tuple[int, ...]] = {
            "lstm.weight_ih_l0": (4 * self.hidden_size, self.bands * self.stack),
            "linear.bias": (len(tokens) + 1,),
        }
        for name, size in sizes.items():
            if arrays[name].shape != size:
                raise ShapeError(f"{name}: expected {size}, got {arrays[name].shape}")
        return self._new_model()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # waves have different lengths
        tags.target_tags.required = True
        return tags


def _loss(model: SpeechModel, batch: Any, state: Any) -> tuple[Any, None]:
    (steps, lengths), (targets, counts) = batch
    steps = backend_of(model.linear.weight.data).asarray(steps)
    # A wave that became too short for its text (by the change of speed) has no loss.
    return ctc_loss(model(steps, lengths), targets.T, lengths, counts, zero_infinity=True), None


def _sequences_in(batch: Any) -> int:
    """Return the number of sequences in a batch, over which its loss averages."""
    return len(batch[1][1])
