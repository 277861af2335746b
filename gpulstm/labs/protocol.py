"""scikit-learn's estimator protocol for dataclasses whose fields are the parameters; scikit-learn is optional."""

import inspect
import sys
from dataclasses import dataclass, fields
from typing import Any, Self

from gpulstm.errors import NotFitted, ShapeError


@dataclass(kw_only=True, eq=False, repr=False)
class Protocol:
    """The base of all estimators: the fields are the parameters, and ``fit`` sets attributes that end in "_".

    The fitted model is ``model_``.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name. ``deep`` has no effect; scikit-learn passes it."""
        return {parameter.name: getattr(self, parameter.name) for parameter in fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name and return self. Raises ShapeError for an unknown name."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ShapeError(
                    f"{name}: expected a parameter of {type(self).__name__} ({', '.join(known)}), got an unknown name"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        usual = inspect.signature(type(self)).parameters
        given = {name: value for name, value in self.get_params().items() if value is not usual[name].default}
        given = {name: value for name, value in given.items() if repr(value) != repr(usual[name].default)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        """Describe the estimator to scikit-learn, the only caller."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags())

    def check_is_fitted(self) -> None:
        """Raise NotFitted before ``fit``.

        If scikit-learn is imported, the error is also a scikit-learn NotFittedError.
        """
        if self.__sklearn_is_fitted__():
            return
        kinds: tuple[type, ...] = (NotFitted,)
        if (exceptions := sys.modules.get("sklearn.exceptions")) is not None:
            kinds += (exceptions.NotFittedError,)
        name = type(self).__name__
        raise type("NotFitted", kinds, {})(f"{name}: expected a fitted one, got one before fit(); call fit() or load()")
