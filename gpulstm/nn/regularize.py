"""The regularisers of recurrent layers, for the argument ``regularize=``: one of them, or several.

They act in training only, except zoneout, which uses its expectation in evaluation. The layer's generator gives each
a 64-bit seed, so the same seed gives the same noise on every device.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from gpulstm.cells import Cell
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.nn.module import check_rate


class Regularizer:
    """The base class of regularisers; their fields are probabilities."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            check_rate(f"{type(self).__name__}.{each.name}", getattr(self, each.name))


@dataclass(frozen=True)
class Zoneout(Regularizer):
    """Keeps each unit's old h with probability ``h`` at each step, and its old c with probability ``c``.

    Krueger et al. 2017. ``c`` also applies to all further states of a cell. In evaluation each state is its
    expectation. Pass it to the ``regularize`` argument of a recurrent layer. Raises ShapeError for a probability
    outside [0, 1].

    >>> gl.LSTM(3, 4, regularize=gl.Zoneout(h=0.05, c=0.1))
    LSTM(3, 4, Zoneout(h=0.05, c=0.1))
    """

    h: float = 0.0
    c: float = 0.0


@dataclass(frozen=True)
class VariationalDropout(Regularizer):
    """Dropout with one mask for all steps of a sequence (Gal & Ghahramani 2016).

    ``input`` is the dropout rate of the input of every layer, ``recurrent`` that of h before the recurrent product.
    Pass it to the ``regularize`` argument of a recurrent layer. Raises ShapeError for a rate outside [0, 1].

    >>> gl.LSTM(3, 4, regularize=gl.VariationalDropout(input=0.2, recurrent=0.2))
    LSTM(3, 4, VariationalDropout(input=0.2, recurrent=0.2))
    """

    input: float = 0.0
    recurrent: float = 0.0


@dataclass(frozen=True)
class WeightDrop(Regularizer):
    """Dropout on the elements of weight_hh, with one mask per call (Wan et al. 2013; Merity, Keskar & Socher 2018).

    Pass it to the ``regularize`` argument of a recurrent layer. Raises ShapeError for a rate outside [0, 1].

    >>> gl.LSTM(3, 4, regularize=gl.WeightDrop(0.5))
    LSTM(3, 4, WeightDrop(rate=0.5))
    """

    rate: float = 0.5


@dataclass(frozen=True)
class Regularization:
    """All regularisers of a layer; one that was not given has rates of 0."""

    zoneout: Zoneout = Zoneout()
    variational: VariationalDropout = VariationalDropout()
    weight_drop: WeightDrop = WeightDrop(0.0)

    @property
    def draws(self) -> bool:
        """Whether any rate is above 0."""
        return self != _NOTHING

    def words(self) -> list[str]:
        """The regularisers with a rate above 0, as ``repr`` shows them."""
        return [repr(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != getattr(_NOTHING, f.name)]


_NOTHING = Regularization()


def regularization(regularize: Any, cell: Cell) -> Regularization:
    """Combine one regulariser or several into a Regularization.

    Raises DTypeError for anything else, ShapeError for two of one kind and for a kind that the cell cannot use.
    """
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
        want = f"only VariationalDropout(input=...) for a {cell.name}, because it has no recurrent product"
        raise ShapeError(f"regularize: expected {want}, got {', '.join(chosen.words())}")
    if chosen.zoneout.c > 0 and len(cell.states) == 1:
        raise ShapeError(f"Zoneout.c: expected 0, because a {cell.name} has no state but h, got {chosen.zoneout.c}")
    return chosen
