"""One event to one prediction."""

from typing import Any

import pytest

from learning.intake import Invalid
from learning.label import PendingLabels
from learning.learn import Learner
from learning.records import Example
from learning.score import Duplicate, Scored, score
from tests.doubles import HOUR, FixedModel, Ping, tiny_pipeline


class Bench:
    """A pipeline and the state that scoring touches."""

    def __init__(self, **overrides: Any) -> None:
        self.pipeline = tiny_pipeline(**overrides)
        self.learner = Learner(self.pipeline)
        self.profiles: dict[str, Any] = {}
        self.entries: dict[str, bytes] = {}
        self.pending = PendingLabels(self.entries, horizon_ms=HOUR, expired="drop", corrected="log")

    def score(self, name: str, *, at: int = 0, x: float = 0.0) -> Scored | Duplicate:
        event = Ping(id=name, at=at, x=x)
        return score(self.pipeline, self.learner, self.profiles, self.pending, event, "k", name, at)


def test_event_is_scored_with_the_profile_as_of_before_it() -> None:
    bench = Bench()
    first, second = bench.score("a", x=3.0), bench.score("b", x=4.0)
    assert isinstance(first, Scored)
    assert isinstance(second, Scored)
    assert (first.prediction.features, second.prediction.features) == ([3.0, 0.0], [4.0, 1.0])
    assert (first.prediction.prediction, first.prediction.version, first.late) == (0.5, 0, False)


def test_prediction_names_the_version_that_made_it() -> None:
    bench = Bench()
    bench.score("a", x=1.0)
    record = bench.pending.resolve("a", "k", True, 1).record
    assert isinstance(record, Example)
    bench.learner.apply(41, record)
    scored = bench.score("b", x=1.0)
    assert isinstance(scored, Scored)
    assert scored.prediction.version == 42


def test_event_seen_before_is_a_duplicate_and_touches_nothing() -> None:
    bench = Bench()
    bench.score("a")
    before = (dict(bench.profiles), dict(bench.entries))
    assert bench.score("a", at=5) == Duplicate("a")
    assert (bench.profiles, bench.entries) == before


def test_label_that_came_first_is_resolved_with_the_event() -> None:
    bench = Bench()
    bench.pending.resolve("a", "k", True, 5)
    scored = bench.score("a")
    assert isinstance(scored, Scored)
    assert scored.resolution is not None
    assert scored.resolution.kind == "matched"


def test_feature_that_cannot_be_computed_touches_nothing() -> None:
    bench = Bench()
    with pytest.raises(Invalid, match="got 666") as caught:
        bench.score("a", x=666.0)
    assert caught.value.reason == "feature_error"
    assert (bench.profiles, bench.entries) == ({}, {})


def test_model_that_raises_leaves_no_pending_prediction_but_the_event_in_its_profile() -> None:
    bench = Bench(task="regression", model=lambda: FixedModel(raises=["predict"]))
    with pytest.raises(Invalid, match="cannot predict") as caught:
        bench.score("a")
    assert caught.value.reason == "model_error"
    assert bench.entries == {}
    assert bench.profiles == {"k": 1}
