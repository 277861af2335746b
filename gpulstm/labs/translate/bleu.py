"""BLEU, how near translations are to those of people, through the library sacrebleu."""

import importlib.util
from collections.abc import Sequence

from gpulstm.errors import FormatError


def check_bleu() -> None:
    """Raise FormatError where sacrebleu is not installed."""
    if not has_bleu():
        raise FormatError(
            "score: expected sacrebleu, which is not installed: pip install sacrebleu (of the extra labs)"
        )


def has_bleu() -> bool:
    """Whether sacrebleu is installed."""
    return importlib.util.find_spec("sacrebleu") is not None


def bleu(translations: Sequence[str], references: Sequence[str], *, lowercase: bool = False) -> float:
    """BLEU from 0 to 100 (Papineni et al. 2002) by sacrebleu with its tokens 13a, letter case ignored on demand."""
    check_bleu()
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(translations), [list(references)], lowercase=lowercase).score)
