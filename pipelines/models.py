"""What a pipeline's model is made for: looks at a River estimator and at the outcome's type, once, at start-up."""

import pickle
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, get_type_hints

from river import base, compose
from river.optim import schedulers

from pipelines.errors import DefinitionError
from pipelines.streams import Label, annotations_of, kinds_of, shown

Task = Literal["binary", "multiclass", "regression", "anomaly"]
_OUTCOMES = (bool, float, str)
_DEEPEST = 8  # levels of models within models that are looked at


def outcome_type(label: type[Label]) -> type[bool] | type[float] | type[str]:
    """The type of a label's outcome. Raises DefinitionError."""
    place = f"{label.__name__}.outcome"
    if "outcome" in label.__struct_fields__:
        annotation = annotations_of(label)["outcome"]
    else:
        found = getattr(label, "outcome", None)
        if not isinstance(found, property) or found.fget is None:
            got = "nothing" if found is None else shown(type(found))
            message = f"{place}: got {got}, expected a field or a property; write @property def outcome(self) -> bool"
            raise DefinitionError(message)
        annotation = _return_annotation(place, found.fget)
    for kind in _OUTCOMES:
        if kinds_of(annotation) == {kind}:
            return kind
    remedy = "return float(...)" if kinds_of(annotation) <= {int, float} else "annotate what it returns"
    message = f"{place}: got type {shown(annotation)}, expected bool, float or str; {remedy}"
    raise DefinitionError(message)


def _return_annotation(place: str, getter: Callable[[Any], Any]) -> Any:
    try:
        hints = get_type_hints(getter)
    except NameError as error:
        message = f"{place}: its annotation cannot be resolved: {error}; import it at the top of the module"
        raise DefinitionError(message) from error
    if "return" not in hints:
        message = f"{place}: got no return annotation, expected bool, float or str; write def outcome(self) -> bool"
        raise DefinitionError(message)
    return hints["return"]


def checked_model(place: str, factory: Any) -> Any:
    """A model of the factory. Raises DefinitionError where it makes none that can be learned and copied."""
    if not callable(factory):
        message = (
            f"{place}: got model {_kind(factory)}, expected a callable that makes a new one; write model=lambda: ..."
        )
        raise DefinitionError(message)
    model = _made(place, factory)
    if not isinstance(model, base.Estimator):
        message = f"{place}: model makes {_kind(model)}, expected a River estimator; see river's Classifier, Regressor"
        raise DefinitionError(message)
    if _made(place, factory) is model:
        message = f"{place}: model gives the same object twice, expected a new one at each call; build it inside"
        raise DefinitionError(message)
    try:
        pickle.dumps(model, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        message = f"{place}: model cannot be pickled ({error}); use named functions of a module in it, not lambdas"
        raise DefinitionError(message) from error
    return model


def check_seeds(place: str, model: Any) -> None:
    """Raise DefinitionError where a model would draw other random numbers in each worker."""
    unseeded = _unseeded(model, type(model).__name__)
    if unseeded:
        message = (
            f"{place}: {unseeded} has no seed, so that each worker would learn another model and no prediction could"
            " be made again; give it one, such as seed=1"
        )
        raise DefinitionError(message)


def _unseeded(thing: Any, path: str, depth: int = 0) -> str:
    """Where inside a model something draws random numbers from a seed that is not given; "" where nothing does."""
    if depth > _DEEPEST:
        return ""
    if isinstance(thing, dict):
        inside = list(thing.items())
    elif isinstance(thing, list | tuple | deque):
        inside = list(enumerate(thing))
    elif type(thing).__module__.startswith("river.") and hasattr(thing, "__dict__"):
        if vars(thing).get("seed", 0) is None:
            return path
        inside = [(name, value) for name, value in vars(thing).items() if name != "_rng"]
    else:
        return ""
    return next(filter(None, (_unseeded(value, f"{path}.{name}", depth + 1) for name, value in inside)), "")


def _made(place: str, factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except Exception as error:
        message = f"{place}: model() raised {error!r}, expected a River estimator; it is called without arguments"
        raise DefinitionError(message) from error


def task_of(place: str, model: Any, outcome: type[bool] | type[float] | type[str]) -> Task:
    """What the model is to do with such outcomes. Raises DefinitionError where it cannot."""
    last = model
    while isinstance(last, compose.Pipeline):
        last = list(last.steps.values())[-1]
    if isinstance(last, base.Classifier):
        if outcome is bool:
            return "binary"
        if outcome is str and model._multiclass:
            return "multiclass"
        if outcome is str:
            remedy = "expected one for several classes; wrap it in river.multiclass.OneVsRestClassifier"
            message = f"{place}: got {_kind(last)}, which knows two classes only, for an outcome of type str; {remedy}"
            raise DefinitionError(message)
    if isinstance(last, base.Regressor) and outcome is float:
        return "regression"
    if isinstance(last, base.AnomalyDetector) and outcome is bool:
        return "anomaly"
    message = f"{place}: got model {_kind(last)} for an outcome of type {outcome.__name__}; {_REMEDIES[outcome]}"
    raise DefinitionError(message)


_REMEDIES = {
    bool: "expected a classifier or an unsupervised anomaly detector; change the model, or outcome's annotation",
    float: "expected a regressor; change the model, or outcome's annotation",
    str: "expected a classifier of several classes; change the model, or outcome's annotation",
}


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def learning_rate_of(model: Any) -> Any:
    """The constant schedule of the optimizer of a model's last step, `river.optim.schedulers.Constant`, or None."""
    rate = getattr(getattr(last_step(model), "optimizer", None), "lr", None)
    # One that was read from a damaged snapshot may lack what its constructor gives it.
    return rate if isinstance(rate, schedulers.Constant) and hasattr(rate, "learning_rate") else None


def gives_probabilities(model: Any) -> bool:
    """Whether a classifier has more to say than a class. River's base class has the method, which only raises."""
    return type(last_step(model)).predict_proba_one is not base.Classifier.predict_proba_one


def last_step(model: Any) -> Any:
    """The last step of a River pipeline, or the model itself."""
    steps = getattr(model, "steps", None)
    last = list(steps.values())[-1] if isinstance(steps, dict) and steps else model
    return model if last is model else last_step(last)
