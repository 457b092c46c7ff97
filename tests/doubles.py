"""Stand-ins shared by tests: a tiny pipeline with two features whose every number can be worked out by hand.

`tiny_pipeline` has the attributes of `pipelines.definition.Pipeline` that the learning room reads, and no more.
"""

from collections.abc import Callable, Iterable, MutableMapping
from types import SimpleNamespace
from typing import Any

import msgspec
from river import linear_model, preprocessing

from features import FeatureError

HOUR = 3_600_000


class Ping(msgspec.Struct, frozen=True, kw_only=True):
    """An event."""

    id: str | None = None
    key: str = "k"
    at: int
    x: float = 0.0


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """A label."""

    id: str
    key: str = "k"
    at: int
    y: Any = True

    @property
    def outcome(self) -> Any:
        """What the model learns; an y of "raise" is a mistake in a user's property."""
        if self.y == "raise":
            message = "no outcome"
            raise KeyError(message)
        return self.y


class TinyStream:
    """The decoding half of a pipeline."""

    def __init__(self, struct: type[Any], topic: str) -> None:
        self.struct = struct
        self.topic = topic
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(struct).decode
        self.encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode

    def parts_of(self, obj: Any) -> tuple[str, str | None, int]:
        """Key, id and time."""
        return self.key_of(obj), self.id_of(obj), self.time_of(obj)

    def key_of(self, obj: Any) -> str:
        """The key."""
        return str(obj.key)

    def id_of(self, obj: Any) -> str | None:
        """The id."""
        return None if obj.id is None else str(obj.id)

    def time_of(self, obj: Any) -> int:
        """The time."""
        return int(obj.at)


class TinyFeatures:
    """`x` of the event, and how many events of its key there were before it. Refuses x = 666."""

    names = ("x", "seen")
    schema = "0123456789abcdef"

    def compute(
        self, event: Any, key: str, time_ms: int, profiles: MutableMapping[str, Any]
    ) -> tuple[list[float], bool]:
        """The vector, and whether the event came too late (it never does here)."""
        if event.x == 666.0:
            name, message = "x", "got 666"
            raise FeatureError(name, message)
        seen = profiles.get(key, 0)
        profiles[key] = seen + 1
        return [event.x, float(seen)], time_ms < 0


def logistic() -> Any:
    """The model of the examples."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def tiny_pipeline(**overrides: Any) -> Any:
    """A pipeline with a horizon of one hour."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "task": "binary",
        "events": TinyStream(Ping, "pings"),
        "labels": TinyStream(Pong, "pongs"),
        "feature_set": TinyFeatures(),
        "model": logistic,
        "horizon_ms": HOUR,
        "expired": "drop",
        "corrected": "log",
        "negatives": 1.0,
        "threshold": 0.5,
        "window": 10,
        "span_ms": HOUR,
        "frozen_at": None,
        "baseline_examples": 5,
        "drift": [],
    }
    return SimpleNamespace(**{**settings, **overrides})


def monitor(signal: str, detector: Callable[[], Any]) -> Any:
    """A drift monitor."""
    return SimpleNamespace(signal=signal, detector=detector)


class FixedModel:
    """Answers what it is told; learns by counting. Raises on what its name says."""

    def __init__(self, answer: Any = None, *, raises: Iterable[str] = ()) -> None:
        self.answer = answer
        self.raises = tuple(raises)
        self.learned: list[Any] = []

    def learn_one(self, x: dict[str, float], y: Any = None) -> None:
        """Remember the outcome."""
        if "learn" in self.raises:
            message = "cannot learn"
            raise RuntimeError(message)
        self.learned.append((x, y))

    def predict_one(self, x: dict[str, float]) -> Any:
        """The answer."""
        if "predict" in self.raises:
            message = "cannot predict"
            raise RuntimeError(message)
        return self.answer


class FixedProbabilities(FixedModel):
    """The same, for a model that gives probabilities."""

    def predict_proba_one(self, x: dict[str, float]) -> Any:
        """The answer, or River's way of saying that there are no probabilities."""
        if "proba" in self.raises:
            raise NotImplementedError
        return self.answer
