"""The default options of each version of Keras, and its hard_sigmoid, for files that do not say them."""

import re
from typing import Any

AMBIGUOUS = "ambiguous"  # for a version with two possible defaults
UNNAMED, NAMED = "2.12 to 3.5", "3.6 or later"  # for a file that only shows whether its groups have names
STEEP, FLAT = ("hard_sigmoid", 0.2, 0.5), ("hard_sigmoid", 1 / 6, 0.5)  # of Keras 1 and 2; of Keras 3


class Version:
    """A version as written in a file, "3.8.0" or "2.2.4-tf"; "" for none. "-tf" is TensorFlow's Keras before 2.4."""

    def __init__(self, text: str) -> None:
        found = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?", text)
        self.text = text[:40]
        self.number = (int(found[1]), int(found[2] or 0)) if found else None
        self.tensorflow = text.endswith("-tf") or (self.number is not None and (2, 4) <= self.number < (3, 0))

    @property
    def hard_sigmoid(self) -> tuple[str, float, float] | None:
        """The version's hard_sigmoid as cells.activation takes it; None if the version is not known."""
        if self.number is None or self.text == UNNAMED:
            return None
        return FLAT if self.number >= (3, 0) else STEEP

    @property
    def standalone(self) -> bool:
        """Whether this is the standalone Keras, before it became part of TensorFlow."""
        return self.number is not None and self.number < (2, 4) and not self.tensorflow

    def default(self, option: str) -> Any:
        """The default of a recurrent layer's option; AMBIGUOUS if there are two, or if the version is not known."""
        usual = {"activation": "tanh", "go_backwards": False, "merge_mode": "concat"}
        if option in usual:
            return usual[option]
        if self.number is None or (self.tensorflow and self.number == (2, 2)):
            return AMBIGUOUS  # TensorFlow 1.13 to 2.1 all call their Keras 2.2.4-tf
        if option == "recurrent_activation":
            return "hard_sigmoid" if self.number < (2, 3) else "sigmoid"
        if option == "reset_after":
            return self.number >= ((2, 3) if self.tensorflow else (2, 4))
        raise KeyError(option)
