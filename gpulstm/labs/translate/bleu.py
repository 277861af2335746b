"""BLEU, which compares translations with reference translations; computed by the library sacrebleu."""

import importlib.util
from collections.abc import Sequence

from gpulstm.errors import FormatError


def check_bleu() -> None:
    """Raise FormatError if sacrebleu is not installed."""
    if not has_bleu():
        raise FormatError(
            "score: expected sacrebleu, which is not installed: pip install sacrebleu (it is in the extra labs)"
        )


def has_bleu() -> bool:
    """Return whether sacrebleu is installed."""
    return importlib.util.find_spec("sacrebleu") is not None


def bleu(translations: Sequence[str], references: Sequence[str], *, lowercase: bool = False) -> float:
    """Return BLEU from 0 to 100 (Papineni et al. 2002), with sacrebleu's tokenizer 13a.

    ``lowercase`` ignores letter case. Raises FormatError if sacrebleu is not installed.
    """
    check_bleu()
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(translations), [list(references)], lowercase=lowercase).score)
