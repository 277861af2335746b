"""SequenceClassifier: sorts texts, or sequences of numbers, into classes; a scikit-learn-style estimator."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from gpulstm import checks, random
from gpulstm.backend import backend_of
from gpulstm.data import pad_sequences
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.labs.by_length import ByLength
from gpulstm.labs.estimator import Estimator, Run, whole_or_not_at_all
from gpulstm.labs.inputs import digest_of
from gpulstm.labs.sentiment.inputs import arrays_of, check_count, is_texts, labels_of, texts_of
from gpulstm.labs.sentiment.model import POOLINGS, SequenceModel, WordVectors, gathered
from gpulstm.labs.sentiment.words import Texts, WordTable, read_vectors, to_json
from gpulstm.nn import Module, cross_entropy
from gpulstm.nn.contexts import evaluation
from gpulstm.tape import Tensor, no_grad, tensor

AT_ONCE = 256  # the maximum number of sequences in a batch of predict
MOST_STEPS = 2**15  # in such a batch, padding included: a long text among short ones would take gigabytes


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceClassifier(Estimator):
    """Classifies texts, or sequences of numbers, with a bidirectional LSTM.

    Train on sequences and their labels with ``fit``; ``predict`` returns classes, ``predict_proba`` probabilities.

    >>> texts = ["a fine film", "a dull film", "fine acting", "dull acting"] * 8
    >>> labels = ["good", "bad", "good", "bad"] * 8
    >>> classifier = SequenceClassifier(min_count=1, epochs=15, learning_rate=1e-2, random_state=0).fit(texts, labels)
    >>> classifier.predict(["fine plot", "a dull plot"]).tolist()
    ['good', 'bad']
    >>> classifier.predict_proba(["fine plot"]).shape      # a column for each of classes_
    (1, 2)

    In ``fit(X, y)``, X is a list of N texts, a list of N sequences (T_n,) or (T_n, D) of different lengths, or an array
    (N, T) or (N, T, D). y holds N labels: strings, integers or booleans. After ``fit``, ``classes_`` holds the classes
    and, for sequences of numbers, ``n_features_in_`` the number of features.

    embedding_size, min_count, lowercase
        For texts: the embedding size, how often a word must occur to get its own embedding, and whether to convert
        words to lower case.
    ngram_buckets
        For texts: number of hash buckets for the 3- to 5-grams of a word's characters. The mean of their embeddings is
        added to the word's embedding; an unknown word has only its n-grams. 0 turns n-grams off.
    vectors
        For texts: a text file of word vectors in GloVe's format, used as initial embeddings. Their size replaces
        ``embedding_size``.
    pooling
        How to pool over the time steps: "max", "mean" or "attention".
    label_smoothing
        Share of the target that is spread over all classes (Szegedy et al. 2016).
    class_weight
        Weights of the classes in the loss: None, "balanced" (every class weighs the same) or a dict from label to a
        weight above 0; labels that are not in the dict have the weight 1.

    Sequences of numbers are standardised with the mean and standard deviation of the training part. Raises ShapeError
    or DTypeError for invalid data and parameters, FormatError for a damaged file of vectors, NotFitted before ``fit``.
    The other parameters are those of ``Estimator``.
    """

    hidden_size: int = 32
    dropout: float = 0.5
    batch_size: int = 50
    learning_rate: float = 3e-3
    embedding_size: int = 64
    min_count: int = 3
    lowercase: bool = True
    ngram_buckets: int = 20_000
    vectors: str | Path | None = None
    pooling: str = "max"
    label_smoothing: float = 0.1
    class_weight: Any = None

    kind: ClassVar[str] = "sequence classifier"
    made_of: ClassVar = ("pooling", "lowercase", "ngram_buckets")

    @whole_or_not_at_all
    def fit(self, X: Any, y: Any, *, run: Run | None = None) -> Self:
        """Train on the sequences X and their labels y, as the class describes; returns self.

        ``run`` is for commands: files, checkpoints, progress. Raises ShapeError and DTypeError for invalid data and
        parameters, FormatError for an invalid file of vectors.
        """
        self.check_params()
        labels = labels_of(y)
        self.classes_, targets = np.unique(labels, return_inverse=True)
        generator = self._generator()
        with random.using(generator):
            train, held_out = self._split(targets, generator)
            sequences = self._learn_inputs(X, len(targets), train)
            weights = self._class_weights(targets[train])
            model = self._new_model()
            self._give_vectors(model, run or Run())
            batches = self._batches(sequences, targets, train, self.batch_size, generator)
            validation = self._batches(sequences, targets, held_out, AT_ONCE) if len(held_out) else None
            texts = sequences if isinstance(sequences, Texts) else None

            def loss(model: SequenceModel, batch: Any, state: Any) -> tuple[Any, None]:
                (padded, lengths), target = batch
                logits = model(self._inputs(model, padded, texts), lengths)
                backend = backend_of(logits.data)
                weight = None if weights is None else backend.asarray(weights)
                smoothing = self.label_smoothing if model.training else 0.0
                return cross_entropy(logits, backend.asarray(target), weight=weight, label_smoothing=smoothing), None

            def tokens(batch: Any) -> float:
                """Return the sum of the target weights (1 without class_weight), which the loss averages over."""
                return len(batch[1]) if weights is None else float(weights[batch[1]].sum())

            digest = digest_of(list(X) if texts is not None else sequences, labels)
            self._train(model, loss, batches, validation, digest, run, tokens=tokens)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the class probabilities (N, classes), with the columns in the order of ``classes_``."""
        return self.explain(X)[0]

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each sequence, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy: the share of the sequences X that are classified as y says."""
        labels, predicted = labels_of(y), self.predict(X)
        check_count(len(predicted), len(labels))
        return float((predicted == labels).mean())

    def explain(self, X: Any) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the class probabilities (N, classes), and for each sequence the weights of its steps.

        The weights (T_n,) of a sequence sum to 1. With ``pooling="attention"`` they are the attention weights; with
        "max" the weight of a step is the share of units that have their maximum there; with "mean" they are equal. The
        steps of a text are its words: see ``words``. Raises NotFitted before ``fit``.
        """
        self.check_is_fitted()
        sequences = self._sequences(X)
        arrays = sequences.sequences if isinstance(sequences, Texts) else sequences
        texts = sequences if isinstance(sequences, Texts) else None
        probabilities, weights = np.zeros((len(arrays), len(self.classes_))), [np.zeros(0)] * len(arrays)
        model, backend = self.model_, self._backend()
        assert isinstance(model, SequenceModel)
        for some in _side_by_side([len(array) for array in arrays]):
            padded, lengths = pad_sequences([arrays[n] for n in some])
            with evaluation(model), no_grad():
                logits, shares = model.explained(self._inputs(model, padded, texts), lengths)
            raw = backend.to_numpy(logits.data).astype(np.float64)
            e = np.exp(raw - raw.max(axis=1, keepdims=True))
            probabilities[some] = e / e.sum(axis=1, keepdims=True)
            host = backend.to_numpy(shares)
            for b, n in enumerate(some):
                weights[n] = host[: lengths[b], b].astype(np.float64)
        return probabilities, weights

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """Split texts into words, as the classifier does; returns one list of words per text."""
        self.check_is_fitted()
        if self._table is None:
            raise DTypeError("words: expected a classifier of texts, got one of numbers")
        encoded = self._table.encode(texts_of(texts))
        return [[encoded.words[number] for number in sequence] for sequence in encoded.sequences]

    # -- data ------------------------------------------------------------------------------------------------

    def _split(self, targets: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the examples to train on, and of those held out.

        The same share of each class is held out, and at least one example of each class stays in training.
        """
        order = generator.permutation(len(targets))
        held: list[int] = []
        for c in range(len(self.classes_)):
            of_class = order[targets[order] == c]
            held += of_class[: min(round(self.validation_fraction * len(of_class)), len(of_class) - 1)].tolist()
        is_held = np.zeros(len(targets), bool)
        is_held[held] = True
        return np.flatnonzero(~is_held), np.flatnonzero(is_held)

    def _learn_inputs(self, X: Any, N: int, train: np.ndarray) -> Texts | list[np.ndarray]:
        """Learn the words, or the scale of the numbers, from the training part; return the encoded sequences of X."""
        self._table, self._center, self._scale = None, None, None
        if is_texts(X):
            texts = texts_of(X)
            check_count(len(texts), N)
            chosen = [texts[n] for n in train]
            self._table = WordTable.learn(chosen, self.lowercase, self.min_count, self.ngram_buckets)
            return self._table.encode(texts)
        if self.vectors is not None:
            raise DTypeError("vectors: expected None, because X holds numbers, not texts, got a file")
        arrays, self._shape = arrays_of(X)
        check_count(len(arrays), N)
        steps = np.concatenate([arrays[n] for n in train])
        with np.errstate(over="ignore", invalid="ignore"):
            self._center, spread = steps.mean(axis=0), steps.std(axis=0)
        if not np.isfinite(spread).all():
            raise ShapeError("X: expected numbers whose squares fit in float64, got larger ones")
        self._scale = np.where(spread > 0, spread, 1.0)
        self.n_features_in_ = arrays[0].shape[1] if self._shape is None else int(np.prod(self._shape))
        return self._scaled(arrays)

    def _sequences(self, X: Any) -> Texts | list[np.ndarray]:
        """Encode new sequences X as in training. Raises ShapeError for other features."""
        if self._table is not None:
            return self._table.encode(texts_of(X))
        arrays, shape = arrays_of(X)
        assert self._center is not None
        fits = all(array.shape[1] == len(self._center) for array in arrays)
        if not fits or (self._shape is not None and shape is not None and shape != self._shape):
            got = arrays[0].shape[1] if shape is None else int(np.prod(shape))
            raise ShapeError(
                f"X has {got} features, but {type(self).__name__} is expecting {self.n_features_in_} features as input"
            )
        return self._scaled(arrays)

    def _scaled(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scaled = [((array - self._center) / self._scale).astype(self.dtype) for array in arrays]
        for n, array in enumerate(scaled):
            if not np.isfinite(array).all():
                raise ShapeError(
                    f"X[{n}]: expected numbers that fit in {self.dtype} after standardisation, got larger ones"
                )
        return scaled

    def _batches(
        self,
        sequences: Texts | list[np.ndarray],
        targets: np.ndarray,
        numbers: np.ndarray,
        size: int,
        generator: np.random.Generator | None = None,
    ) -> ByLength:
        arrays = sequences.sequences if isinstance(sequences, Texts) else sequences

        def make(chosen: np.ndarray) -> Any:
            examples = numbers[chosen]
            return pad_sequences([arrays[n] for n in examples]), targets[examples]

        return ByLength([len(arrays[n]) for n in numbers], size, make, generator)

    def _inputs(self, model: SequenceModel, padded: np.ndarray, texts: Texts | None) -> Tensor:
        """Return the input of the LSTM, (T, B, features)."""
        backend = backend_of(model.linear.weight.data)
        if texts is None:
            return tensor(backend.asarray(padded))
        assert model.words is not None
        found, numbers = np.unique(padded, return_inverse=True)
        ids, grams = (backend.asarray(part[found]) for part in (texts.ids, texts.grams))
        return gathered(model.words(ids, grams), backend.asarray(numbers.reshape(padded.shape)))

    # -- the model -------------------------------------------------------------------------------------------

    def check_params(self) -> None:
        """Raise ShapeError or DTypeError for an invalid parameter."""
        super().check_params()
        for name in ("embedding_size", "min_count"):
            checks.count(name, getattr(self, name), 1)
        checks.count("ngram_buckets", self.ngram_buckets)
        checks.flag("lowercase", self.lowercase)
        checks.choice("pooling", self.pooling, POOLINGS)
        checks.number("label_smoothing", self.label_smoothing, most=1)
        if self.vectors is not None and not isinstance(self.vectors, str | os.PathLike):
            raise DTypeError(f"vectors: expected a path or None, got {self.vectors!r:.60}")
        named = isinstance(self.class_weight, str) and self.class_weight == "balanced"
        if self.class_weight is not None and not named and not isinstance(self.class_weight, Mapping):
            raise DTypeError(f"class_weight: expected None, 'balanced' or a dict, got {self.class_weight!r:.60}")

    def _class_weights(self, targets: np.ndarray) -> np.ndarray | None:
        """Return the weight of each class in the loss, (classes,), or None."""
        if self.class_weight is None:
            return None
        counts = np.bincount(targets, minlength=len(self.classes_))
        if self.class_weight == "balanced":
            return (len(targets) / (len(counts) * np.maximum(counts, 1))).astype(self.dtype)
        known = self.classes_.tolist()
        for label, weight in self.class_weight.items():
            if label not in known:
                raise ShapeError(f"class_weight: expected labels among {known}, got {label!r}")
            if checks.number("class_weight", weight) == 0:
                raise ShapeError(
                    f"class_weight: expected weights above 0, got 0 for {label!r}; leave out its examples instead"
                )
        return np.array([float(self.class_weight.get(label, 1.0)) for label in known], self.dtype)

    def _new_model(self) -> SequenceModel:
        made, words, features = self._made(), None, 0 if self._center is None else len(self._center)
        self._found: dict[str, np.ndarray] = {}
        if self._table is not None:
            features = self.embedding_size
            if self.vectors is not None:
                self._found, features = read_vectors(self.vectors, self._table.words)
            words = WordVectors(len(self._table), self.ngram_buckets, features, **made)
        return SequenceModel(
            features,
            len(self.classes_),
            words,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
            pooling=self.pooling,
            **made,
        )

    def _give_vectors(self, model: SequenceModel, run: Run) -> None:
        """Initialise the embeddings with the vectors that were read from the file."""
        if self._table is None or not self._found:
            return
        assert model.words is not None
        weight = model.words.own.weight.data
        for number, word in enumerate(self._table.words, 1):
            if word in self._found:
                weight[number] = backend_of(weight).asarray(self._found[word].astype(self.dtype))
        run.say(f"vectors: {self.vectors} has {len(self._found):,} of the {len(self._table.words):,} words")
        self._found = {}

    # -- files -----------------------------------------------------------------------------------------------

    def _description(self) -> dict[str, Any]:
        if not isinstance(self.class_weight, Mapping):
            return super()._description()
        plain, known = copy.copy(self), self.classes_.tolist()  # keys in JSON are strings
        plain.class_weight = {str(c): float(self.class_weight[c]) for c in known if c in self.class_weight}
        return super(SequenceClassifier, plain)._description()

    def _fitted(self) -> dict[str, Any]:
        scale = None if self._center is None or self._scale is None else [self._center.tolist(), self._scale.tolist()]
        classes = {"dtype": self.classes_.dtype.str, "values": self.classes_.tolist()}
        shape = None if self._table is not None or self._shape is None else list(self._shape)
        return {"table": to_json(self._table), "scale": scale, "shape": shape, "classes": classes}

    def _restore(self, fitted: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Module:
        dtype = np.dtype(fitted["classes"]["dtype"])
        if dtype.kind not in "biufU":
            raise ShapeError(f"classes: expected numbers or strings, got {dtype}")
        self.classes_ = np.array(fitted["classes"]["values"], dtype)
        if isinstance(weights := self.class_weight, Mapping):
            self.class_weight = {c: weights[str(c)] for c in self.classes_.tolist() if str(c) in weights}
        self._table, self._center, self._scale, self._shape = None, None, None, None
        own, pieces = arrays.get("words.own.weight"), arrays.get("words.grams.weight")
        size = arrays["lstm.weight_ih_l0"].shape[1]
        if fitted["table"] is not None:
            self._table = WordTable(**{name: fitted["table"][name] for name in ("words", "lowercase", "buckets")})
            checks.flag("lowercase", self._table.lowercase)
            wanted = 0 if pieces is None else len(pieces) - 1
            if own is None or own.shape != (len(self._table), size) or self._table.buckets != wanted:
                raise ShapeError(
                    f"words.own.weight: expected ({len(self._table)}, {size}) and {wanted} buckets, got others"
                )
            if self.ngram_buckets != wanted:
                raise ShapeError(f"ngram_buckets: expected {wanted}, as the arrays have, got {self.ngram_buckets}")
        else:
            self._center, self._scale = (np.array(part, np.float64) for part in fitted["scale"])
            for name, array in (("center", self._center), ("scale", self._scale)):
                if array.shape != (size,) or not np.isfinite(array).all():
                    raise ShapeError(f"{name}: expected {size} finite numbers, got others")
            self._shape = None if fitted["shape"] is None else tuple(map(int, fitted["shape"]))
            self.n_features_in_ = size if self._shape is None else int(np.prod(self._shape))
        if arrays["linear.weight"].shape[0] != len(self.classes_) or self.classes_.ndim != 1:
            raise ShapeError(f"classes: expected {arrays['linear.weight'].shape[0]}, got {self.classes_.shape}")
        self.embedding_size, self.vectors = size if self._table is not None else self.embedding_size, None
        return self._new_model()

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = tags.input_tags.string = True
        return tags


def _side_by_side(lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the indices of sequences of similar length, one batch at a time."""
    order, start = np.argsort(lengths, kind="stable"), 0
    while start < len(order):
        stop = start + 1
        while stop < min(len(order), start + AT_ONCE) and (stop + 1 - start) * lengths[order[stop]] <= MOST_STEPS:
            stop += 1
        yield order[start:stop]
        start = stop
