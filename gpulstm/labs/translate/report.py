"""Test a translator on sentences that training never saw; report the results as text and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpulstm import plot
from gpulstm.labs.translate.bleu import bleu, has_bleu
from gpulstm.labs.translate.estimator import Translator
from gpulstm.labs.translate.tokens import SPACE

EXAMPLES = 5


@dataclass(frozen=True)
class Report:
    """The translations of the test part, and their scores."""

    sources: Sequence[str]
    wanted: Sequence[str]
    written: Sequence[str]
    token_accuracy: float
    bleu: float | None  # None where sacrebleu is not installed

    @classmethod
    def of(cls, translator: Translator, sources: Sequence[str], wanted: Sequence[str]) -> "Report":
        """Translate the test part."""
        written = translator.predict(sources)
        score = bleu(written, wanted, lowercase=translator.lowercase) if has_bleu() else None
        return cls(sources, wanted, written, translator.token_accuracy(sources, wanted), score)

    @property
    def exact(self) -> int:
        """The number of translations that equal the references, except for spaces and letter case."""
        pairs = zip(self.written, self.wanted, strict=True)
        return sum(plain(written) == plain(wanted) for written, wanted in pairs)

    def lines(self) -> list[str]:
        """Return the lines of the report."""
        n = len(self.sources)
        score = "sacrebleu is not installed" if self.bleu is None else f"{self.bleu:.2f}"
        lines = [
            f"test: {n:,} sentences that training never saw",
            f"exact matches: {self.exact:,} of {n:,} ({self.exact / n:.1%})",
            f"BLEU: {score}",
            f"token accuracy, given the true previous tokens: {self.token_accuracy:.2%}",
        ]
        for source, wanted, written in list(zip(self.sources, self.wanted, self.written, strict=True))[:EXAMPLES]:
            lines.append(f"  {source}\n    -> {written}")
            if plain(written) != plain(wanted):
                lines.append(f"    expected: {wanted}")
        return lines


def plain(sentence: str) -> str:
    """Return the sentence in lower case and without spaces."""
    return "".join(sentence.lower().split())


def draw(translator: Translator, source: str, path: str | Path) -> None:
    """Draw the attention weights of a sentence's translation; raises as plot.save does."""
    targets, sources, weights = translator.attention(source)
    targets, sources = ([token.removeprefix(SPACE) for token in tokens] for tokens in (targets, sources))
    size = 2.5 + 0.28 * min(len(sources), plot.FEW), 2 + 0.28 * min(len(targets), plot.FEW)
    plot.save(path, lambda axes: plot.attention(axes, weights, sources, targets), size=size)
