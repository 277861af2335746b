"""What regularises a recurrent layer, given to it as ``regularize=``: one of these, or several together.

All act in training alone, but zoneout, which takes its expectation in evaluation. Their draws come from the
layer's generator as 64-bit seeds, so a seed gives the same on every device.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from gpulstm.cells import Cell
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.nn.module import check_rate


class Regularizer:
    """Base of what ``regularize=`` takes; its fields are rates."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            check_rate(f"{type(self).__name__}.{each.name}", getattr(self, each.name))


@dataclass(frozen=True)
class Zoneout(Regularizer):
    """Keeps each unit's old h with probability ``h`` at each step, and its old c with probability ``c``.

    Krueger et al. 2017. The other states of a cell follow ``c``. For the ``regularize`` argument of a recurrent layer.
    In evaluation each state is the expectation. Raises ShapeError for a probability outside [0, 1].

    >>> gl.LSTM(3, 4, regularize=gl.Zoneout(h=0.05, c=0.1))
    LSTM(3, 4, Zoneout(h=0.05, c=0.1))
    """

    h: float = 0.0
    c: float = 0.0


@dataclass(frozen=True)
class VariationalDropout(Regularizer):
    """Dropout with one mask for all steps of a sequence (Gal & Ghahramani 2016).

    ``input`` is the rate on the input of every layer, ``recurrent`` that on h before the recurrent product. For the
    ``regularize`` argument of a recurrent layer. Raises ShapeError for a rate outside [0, 1].

    >>> gl.LSTM(3, 4, regularize=gl.VariationalDropout(input=0.2, recurrent=0.2))
    LSTM(3, 4, VariationalDropout(input=0.2, recurrent=0.2))
    """

    input: float = 0.0
    recurrent: float = 0.0


@dataclass(frozen=True)
class WeightDrop(Regularizer):
    """Dropout on the elements of weight_hh, with one mask per call (Wan et al. 2013; Merity, Keskar & Socher 2018).

    For the ``regularize`` argument of a recurrent layer. Raises ShapeError for a rate outside [0, 1].

    >>> gl.LSTM(3, 4, regularize=gl.WeightDrop(0.5))
    LSTM(3, 4, WeightDrop(rate=0.5))
    """

    rate: float = 0.5


@dataclass(frozen=True)
class Regularization:
    """What a layer was given, every kind with its rates."""

    zoneout: Zoneout = Zoneout()
    variational: VariationalDropout = VariationalDropout()
    weight_drop: WeightDrop = WeightDrop(0.0)

    @property
    def draws(self) -> bool:
        """Whether any of it acts."""
        return self != _NOTHING

    def words(self) -> list[str]:
        """What acts, as it was given."""
        return [repr(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != getattr(_NOTHING, f.name)]


_NOTHING = Regularization()


def regularization(regularize: Any, cell: Cell) -> Regularization:
    """One regulariser or several as a Regularization; raises DTypeError for what is none, ShapeError for two of
    one kind or for a state that the cell has not."""
    given = [regularize] if isinstance(regularize, Regularizer) else regularize
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise DTypeError(
            f"regularize: expected Zoneout, VariationalDropout or WeightDrop, or several, got {regularize!r}"
        )
    names = {Zoneout: "zoneout", VariationalDropout: "variational", WeightDrop: "weight_drop"}
    found: dict[str, Any] = {}
    for each in given:
        if type(each) not in names:
            raise DTypeError(f"regularize: expected Zoneout, VariationalDropout or WeightDrop, got {each!r}")
        if names[type(each)] in found:
            raise ShapeError(f"regularize: expected one {type(each).__name__}, got two")
        found[names[type(each)]] = each
    chosen = Regularization(**found)
    if not cell.recurrent and (chosen.zoneout.h or chosen.variational.recurrent or chosen.weight_drop.rate):
        want = "VariationalDropout of the input alone, as no product of h is there and all steps are one scan"
        raise ShapeError(f"regularize: a {cell.name} takes {want}, got {', '.join(chosen.words())}")
    if chosen.zoneout.c > 0 and len(cell.states) == 1:
        raise ShapeError(f"Zoneout.c: expected 0, as a {cell.name} has no state but h, got {chosen.zoneout.c}")
    return chosen
