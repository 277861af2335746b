"""Translator: translates sentences; a scikit-learn-style estimator."""

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

BLOCK = 64  # sentences translated in one batch


@dataclass(kw_only=True, eq=False, repr=False)
class Translator(Estimator):
    """Translates sentences: sequence to sequence with attention (Bahdanau et al. 2015; Luong et al. 2015).

    Train on sentences and their translations with ``fit``; ``predict`` translates other sentences.

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

    In ``fit(X, y)``, X is a list of sentences and y the list of their translations; all are strings. ``predict(X)``
    translates by beam search. ``score(X, y)`` is BLEU / 100 and needs the library sacrebleu. ``attention(source)``
    returns how much each output token attends to each input token.

    level
        The kind of tokens. "word": words, digits and punctuation marks. "bpe": parts of words by byte-pair encoding,
        which needs the library tokenizers.
    vocabulary_size, min_count
        Maximum vocabulary size of each language, and how often a token must occur in the training data to be in it.
    lowercase
        Convert all text to lower case.
    embedding_size
        Size of the embeddings, and of the attentional vector that the decoder feeds back.
    tied
        Use the target embedding as the weights of the output layer (Press & Wolf 2017).
    label_smoothing
        Share of the target probability that training spreads over all tokens (Szegedy et al. 2016).
    beam_width
        Number of hypotheses that beam search keeps; 1 takes the most probable token of each step (greedy).
    length_penalty
        Strength of the length normalisation of Wu et al. 2016: 0 turns it off, larger values prefer longer
        translations.
    max_length
        Maximum number of tokens in a sentence. Training leaves out longer pairs; translations stop at this length.

    Raises ShapeError or DTypeError for invalid data and parameters, NotFitted before ``fit``. The other parameters are
    those of ``Estimator``; ``num_layers`` is the number of encoder layers, and the decoder has one layer. After
    ``fit``, ``source_vocabulary_`` and ``target_vocabulary_`` hold the vocabularies, and ``left_out_`` is the number of
    pairs that were left out, because a side was too long or the source had no tokens.
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
        """Train on the sentences X and their translations y; returns self.

        ``validation=(X, y)`` validates on these pairs and holds out none of the training data. ``run`` is for commands:
        files, checkpoints, progress. Raises ShapeError for empty sentences and for lists of different lengths,
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
        """Return the translation of each sentence of X, a list of strings; an empty sentence stays empty.

        ``beam_width`` and ``length_penalty`` override the parameters for this call. Raises NotFitted before ``fit``,
        ShapeError and DTypeError for anything but sentences.
        """
        self.check_is_fitted()
        sources = [self.source_vocabulary_.encode(sentence) for sentence in sentences_in("X", X, empty=True)]
        return [self.target_vocabulary_.decode(ids) for ids in self._translated(sources, beam_width, length_penalty)]

    def attention(self, source: str) -> tuple[list[str], list[str], np.ndarray]:
        """Translate a sentence and return (output tokens, source tokens, attention weights).

        The weights (S, T) say how much each of the S output tokens attends to each of the T source tokens. ▁ in a token
        stands for a space; the last output token is the end of the sentence. Raises NotFitted before ``fit``,
        ShapeError for an empty sentence, DTypeError for anything but a string.
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
        """Return BLEU / 100 of the translations of X against the references y, with sacrebleu's tokenizer 13a.

        With ``lowercase`` letter case is ignored. Raises FormatError if sacrebleu is not installed.
        """
        check_bleu()
        self.check_is_fitted()
        sources, targets = pairs_in("X", X, "y", y)
        return bleu(self.predict(sources), targets, lowercase=self.lowercase) / 100

    def token_accuracy(self, X: Any, y: Any) -> float:
        """Return the share of tokens of y that the model ranks first after the true previous tokens of y."""
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
        """Raise ShapeError, DTypeError or FormatError for an invalid parameter."""
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
            raise ShapeError(f"min_count: expected at most the count of the most common token, got {self.min_count}")
        return learnt

    def _encoded(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the token ids of the pairs that are not too long; translations get a begin and an end token."""
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
        """Return the token ids of the translations; a batch holds sources of similar length."""
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
            raise ShapeError(f"arrays: expected at least {least} numbers for the sizes in the file, got {total}")
        return self._new_model()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.target_tags.required = True
        return tags
