"""Translator: sentences into sentences, with scikit-learn's habits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, ClassVar, Self

import numpy as np

from gpulstm import checks, random
from gpulstm.errors import ShapeError
from gpulstm.labs.estimator import Estimator, Run, whole_or_not_at_all
from gpulstm.labs.inputs import digest_of
from gpulstm.labs.translate.bleu import bleu, check_bleu
from gpulstm.labs.translate.buckets import Buckets, tokens_in
from gpulstm.labs.translate.model import TranslationModel, numbers_in, translation_loss
from gpulstm.labs.translate.search import translate
from gpulstm.labs.translate.sentences import held_out, pairs_in, sentences_in
from gpulstm.labs.translate.tokens import BEGIN, END, LEVELS, SPECIAL, Vocabulary, check_level
from gpulstm.nn import Module
from gpulstm.nn.contexts import evaluation
from gpulstm.tape import no_grad
from gpulstm.train.batch import IGNORED

BLOCK = 64  # sentences translated at once


@dataclass(kw_only=True, eq=False, repr=False)
class Translator(Estimator):
    """Translates sentences: sequence to sequence with attention (Bahdanau et al. 2015; Luong et al. 2015).

    >>> rng = np.random.default_rng(0)
    >>> numbers = [" ".join(rng.choice(["one", "two", "three"], rng.integers(1, 5))) for _ in range(300)]
    >>> figures = [s.replace("one", "1").replace("two", "2").replace("three", "3") for s in numbers]
    >>> options = {"hidden_size": 32, "embedding_size": 32, "batch_size": 16, "learning_rate": 5e-3}
    >>> translator = Translator(**options, epochs=20, random_state=0).fit(numbers, figures)
    >>> translator.predict(["two one three", "one one"])
    ['2 1 3', '1 1']
    >>> targets, sources, weights = translator.attention("three two")
    >>> targets, sources, weights.shape                                # ▁ stands for a space
    (['▁3', '▁2', '</s>'], ['▁three', '▁two'], (3, 2))

    ``fit(X, y)`` trains on sentences X and their translations y, lists of strings. ``predict(X)`` translates by beam
    search, ``score(X, y)`` is BLEU / 100 (it needs sacrebleu), ``attention(source)`` returns how much each output token
    attends to each input token.

    level
        "word": words, digits and signs; "bpe": parts of words by byte-pair encoding (it needs tokenizers).
    vocabulary_size, min_count
        The vocabulary size of each language at most, and how often a token must occur in the training data to be in it.
    lowercase
        Convert all text to lower case.
    embedding_size
        Size of the embeddings, and of the vector that the decoder feeds back.
    tied
        Use the target's embedding as the weights of the output (Press & Wolf 2017).
    label_smoothing
        Share of the probability that training spreads over all tokens (Szegedy et al. 2016).
    beam_width
        Hypotheses that beam search keeps; 1 takes the most probable token of each step (greedy).
    length_penalty
        Strength of Wu et al. 2016's length normalisation: 0 is none, more prefers longer translations.
    max_length
        The maximum number of tokens of a sentence: training leaves out longer pairs, translations end there.

    Raises ShapeError or DTypeError for data and parameters that do not fit, NotFitted before ``fit``. The other
    parameters are those of ``Estimator``; ``num_layers`` is the encoder's, and the decoder has one layer. Fitted:
    ``source_vocabulary_``, ``target_vocabulary_``, and ``left_out_``, the number of pairs that were too long.
    """

    level: str = "word"
    vocabulary_size: int = 8000
    min_count: int = 1
    lowercase: bool = False
    embedding_size: int = 64
    tied: bool = True
    label_smoothing: float = 0.1
    beam_width: int = 5
    length_penalty: float = 0.6
    max_length: int = 100

    hidden_size: int = 128
    dropout: float = 0.2
    batch_size: int = 64

    kind: ClassVar[str] = "translator"
    free: ClassVar = ("beam_width", "length_penalty")
    made_of: ClassVar = ("level", "lowercase", "embedding_size", "tied")

    @whole_or_not_at_all
    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None, run: Run | None = None) -> Self:
        """Train on the sentences X and their translations y; see the class. Returns self.

        ``validation``, (X, y) of other sentences, replaces the held-out share of the training data. ``run`` is for
        commands: files, checkpoints, progress. Raises ShapeError for data that do not fit, naming the sentence,
        DTypeError for anything but strings, FormatError if level is "bpe" and tokenizers is not installed.
        """
        self.check_params()
        sources, targets = pairs_in("X", X, "y", y)
        digest = digest_of(sources, targets)
        generator = self._generator()
        if validation is None:
            held = held_out(len(sources), self.validation_fraction, generator)
            others = list(compress(sources, held)), list(compress(targets, held))
            sources, targets = list(compress(sources, ~held)), list(compress(targets, ~held))
        else:
            others = pairs_in("validation[0]", validation[0], "validation[1]", validation[1])
            digest = digest_of(digest, *others)
        self.source_vocabulary_, self.target_vocabulary_ = self._learnt(sources), self._learnt(targets)
        pairs, checks_of = self._encoded(sources, targets), self._encoded(*others)
        self.left_out_ = len(sources) - len(pairs[0])
        if not pairs[0]:
            raise ShapeError(f"max_length: expected pairs of at most {self.max_length} tokens, got none in X and y")
        with random.using(generator):
            model = self._new_model()
            batches = Buckets(*pairs, self.batch_size, generator)
            held_batches = Buckets(*checks_of, self.batch_size) if checks_of[0] else None
            self._train(model, self._loss, batches, held_batches, digest, run, tokens=tokens_in)
        return self

    def predict(self, X: Any, *, beam_width: int | None = None, length_penalty: float | None = None) -> list[str]:
        """Return the translation of each sentence; that of an empty one is empty.

        ``beam_width`` and ``length_penalty`` replace the parameters. Raises NotFitted, ShapeError, DTypeError.
        """
        self.check_is_fitted()
        sources = [self.source_vocabulary_.encode(sentence) for sentence in sentences_in("X", X, empty=True)]
        return [self.target_vocabulary_.decode(ids) for ids in self._translated(sources, beam_width, length_penalty)]

    def attention(self, source: str) -> tuple[list[str], list[str], np.ndarray]:
        """Return how much each output token attends to each source token: S tokens, T tokens, weights (S, T).

        A ▁ in a token is a space; the last token ends the translation. Raises NotFitted, ShapeError for an empty
        sentence, DTypeError for anything but a sentence.
        """
        self.check_is_fitted()
        ids = self.source_vocabulary_.encode(sentences_in("source", [source])[0])
        (written,) = self._translated([ids], None, None)
        model, backend = self.model_, self._backend()
        inputs, length = np.array([BEGIN, *written], np.int64), np.array([len(ids)])
        with evaluation(model), no_grad():
            _, weights = model(backend.asarray(ids[:, None]), length, backend.asarray(inputs[:, None]))
        targets = self.target_vocabulary_.tokens([*written, END])
        return targets, self.source_vocabulary_.tokens(ids.tolist()), backend.to_numpy(weights.data)[:, 0]

    def score(self, X: Any, y: Any) -> float:
        """BLEU / 100 of the translations of X against y, by sacrebleu's 13a, of small letters with ``lowercase``.

        Raises FormatError where sacrebleu is not installed.
        """
        check_bleu()
        self.check_is_fitted()
        sources, targets = pairs_in("X", X, "y", y)
        return bleu(self.predict(sources), targets, lowercase=self.lowercase) / 100

    def token_accuracy(self, X: Any, y: Any) -> float:
        """Return the share of tokens in y that are the most probable after those before them (teacher forcing)."""
        self.check_is_fitted()
        model, backend = self._model(), self._backend()
        right, count = 0, 0
        with evaluation(model), no_grad():
            for (source, lengths), targets in Buckets(*self._encoded(*pairs_in("X", X, "y", y)), BLOCK):
                inputs = np.where(targets[:-1] == IGNORED, 0, targets[:-1])
                vectors, _ = model(backend.asarray(source), lengths, backend.asarray(inputs))
                likeliest = backend.to_numpy(model.logits(vectors).data.argmax(axis=-1))
                right += int((likeliest == targets[1:]).sum())
                count += int((targets[1:] != IGNORED).sum())
        return right / max(1, count)

    # -- computing -------------------------------------------------------------------------------------------

    def check_params(self) -> None:
        """Raise ShapeError, DTypeError or FormatError for a parameter that cannot be used."""
        super().check_params()
        for name in ("embedding_size", "min_count", "beam_width", "max_length"):
            checks.count(name, getattr(self, name), 1)
        checks.count("vocabulary_size", self.vocabulary_size, 4)
        checks.number("label_smoothing", self.label_smoothing, most=1)
        checks.number("length_penalty", self.length_penalty)
        checks.flag("lowercase", self.lowercase)
        checks.flag("tied", self.tied)
        check_level(self.level)

    def _learnt(self, sentences: Sequence[str]) -> Vocabulary:
        learnt = LEVELS[self.level].learn(sentences, self.vocabulary_size, self.min_count, self.lowercase)
        if len(learnt) <= len(SPECIAL):
            raise ShapeError(f"min_count: expected one that a token of the sentences reaches, got {self.min_count}")
        return learnt

    def _encoded(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The ids of the pairs that are not too long, the translations between begin and end."""
        first, second = [], []
        for source, target in zip(sources, targets, strict=True):
            x, y = self.source_vocabulary_.encode(source), self.target_vocabulary_.encode(target)
            if 0 < len(x) <= self.max_length and len(y) <= self.max_length:
                first.append(x)
                second.append(np.array([BEGIN, *y, END], np.int64))
        return first, second

    def _new_model(self) -> TranslationModel:
        return TranslationModel(
            len(self.source_vocabulary_),
            len(self.target_vocabulary_),
            embedding_size=self.embedding_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
            tied=self.tied,
            **self._made(),
        )

    def _model(self) -> TranslationModel:
        assert isinstance(self.model_, TranslationModel)
        return self.model_

    def _loss(self, model: TranslationModel, batch: Any, state: Any) -> tuple[Any, None]:
        return translation_loss(model, batch, self.label_smoothing if model.training else 0.0), None

    def _translated(
        self, sources: Sequence[np.ndarray], beam_width: int | None, length_penalty: float | None
    ) -> list[list[int]]:
        """The ids of the translations, those of about one length searched at once."""
        width = self.beam_width if beam_width is None else checks.count("beam_width", beam_width, 1)
        alpha = self.length_penalty if length_penalty is None else checks.number("length_penalty", length_penalty)
        lengths = np.array([len(source) for source in sources])
        found: list[list[int]] = [[] for _ in sources]
        order = [n for n in np.argsort(lengths, kind="stable").tolist() if lengths[n]]
        for start in range(0, len(order), BLOCK):
            some = order[start : start + BLOCK]
            answers = translate(self._model(), [sources[n] for n in some], width, alpha, self.max_length)
            for n, ids in zip(some, answers, strict=True):
                found[n] = ids
        return found

    # -- files -----------------------------------------------------------------------------------------------

    def _fitted(self) -> dict[str, Any]:
        return {"source": self.source_vocabulary_.to_json(), "target": self.target_vocabulary_.to_json()}

    def _restore(self, fitted: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Module:
        kind = LEVELS[self.level]
        self.source_vocabulary_, self.target_vocabulary_ = (
            kind.from_json(fitted[name]) for name in ("source", "target")
        )
        sizes = len(self.source_vocabulary_), len(self.target_vocabulary_)
        total = sum(array.size for array in arrays.values())
        least = numbers_in(*sizes, self.embedding_size, self.hidden_size, self.num_layers, self.tied)
        if least > total:
            raise ShapeError(
                f"arrays: expected at least {least} numbers, for the sizes that the file names, got {total}"
            )
        return self._new_model()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.target_tags.required = True
        return tags
