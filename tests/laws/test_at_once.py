"""Law of learning many examples at once: whatever they are, the model is what it becomes one by one.

Held against `Learner.apply`, record by record, which `tests.folds` is made of too.
"""

from collections.abc import Callable
from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from river import linear_model, preprocessing, tree

from learning.learn import LARGEST, Learner, ModelError
from learning.records import Control, Example
from tests.doubles import FixedModel, TinyFeatures, logistic, tiny_pipeline
from tests.laws.test_snapshot_models import state_of

Log = list[tuple[int, Example | Control]]


def regression() -> Any:
    return preprocessing.StandardScaler() | linear_model.LinearRegression()


class Picky(FixedModel):
    """Learns nothing of a large number."""

    def learn_one(self, x: dict[str, float], y: Any = None) -> None:
        """Remember the outcome."""
        if next(iter(x.values())) > 2.0:
            message = "too large"
            raise ValueError(message)
        super().learn_one(x, y)


PIPELINES: dict[str, Callable[[], Any]] = {
    "logistic": lambda: tiny_pipeline(baseline_examples=5),
    "a share of the negatives": lambda: tiny_pipeline(baseline_examples=7, negatives=0.5),
    "frozen at a version": lambda: tiny_pipeline(frozen_at=20),
    "regression": lambda: tiny_pipeline(task="regression", model=regression),
    "none that is faster": lambda: tiny_pipeline(model=tree.HoeffdingTreeClassifier),
    "one that raises": lambda: tiny_pipeline(model=lambda: Picky(True)),
}


@st.composite
def examples(draw: st.DrawFn, task: str) -> Example:
    """Of a worker of the pipeline, but for one in ten or so."""
    outcome: Any = draw(st.booleans() if task == "binary" else st.floats(-5.0, 5.0))
    x = float(draw(st.integers(-3, 3)))
    name = draw(st.text("abcdef", min_size=1, max_size=3))
    made = Example(name, "k", 0, 1, 0.5, 0, [x, 1.0], TinyFeatures.schema, outcome, "label")
    match draw(st.integers(0, 40)):
        case 0:
            return msgspec.structs.replace(made, schema="another")
        case 1:
            return msgspec.structs.replace(made, outcome=draw(st.sampled_from(["text", True, 1.5, nan, inf])))
        case 2:
            return msgspec.structs.replace(made, features=draw(st.sampled_from([[], [x], [x, x, x]])))
        case 3:
            number = draw(st.sampled_from([nan, inf, -inf, 2 * LARGEST, -2 * LARGEST, LARGEST, -LARGEST]))
            return msgspec.structs.replace(made, features=[x, number])
        case 4 | 5:
            negative = False if task == "binary" else outcome
            return msgspec.structs.replace(made, features=[], kept=False, outcome=negative)
    return made


@st.composite
def logs(draw: st.DrawFn, task: str) -> Log:
    """Examples, with a control record now and then that leaves the model as it is; offsets with gaps."""
    log: Log = []
    offset = 0
    for _ in range(draw(st.integers(1, 40))):
        offset += draw(st.integers(1, 2))
        action: Any = draw(st.sampled_from([""] * 20 + ["freeze", "thaw", "boost"]))
        numbers: dict[str, Any] = {"factor": 8.0, "examples": 3} if action == "boost" else {}
        log.append((offset, Control(action, 0, "ann", **numbers) if action else draw(examples(task))))
    return log


def one_by_one(learner: Learner, log: Log) -> dict[int, str]:
    """Why each was not learned, by offset."""
    errors = {}
    for offset, entry in log:
        try:
            learner.apply(offset, entry)
        except ModelError as error:
            errors[offset] = last_line(error)
    return errors


def at_once(learner: Learner, log: Log, ends: set[int]) -> dict[int, str]:
    """The same, where runs of examples are cut at these offsets."""
    errors: dict[int, str] = {}
    run: list[tuple[int, Example]] = []

    def learn() -> None:
        if run:
            offsets, found = zip(*run, strict=True)
            errors.update((offset, last_line(error)) for offset, error in learner.apply_all(offsets, found).items())
            run.clear()

    for offset, entry in log:
        if isinstance(entry, Control):
            learn()
            errors |= one_by_one(learner, [(offset, entry)])
        else:
            run.append((offset, entry))
            if offset in ends:
                learn()
    learn()
    return errors


def last_line(error: ModelError) -> str:
    return error.message.strip().rpartition("\n")[2]


@pytest.mark.parametrize("name", PIPELINES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_is_what_it_becomes_one_by_one(name: str, loops: str, data: st.DataObject) -> None:
    pipeline = PIPELINES[name]()
    log = data.draw(logs(pipeline.task))
    ends = data.draw(st.sets(st.sampled_from([offset for offset, _ in log])))
    one, many = Learner(pipeline), Learner(pipeline)
    assert at_once(many, log, ends) == one_by_one(one, log)
    assert state_of(many) == state_of(one)
    assert many.predict([0.5, 1.0]) == one.predict([0.5, 1.0])


def test_what_lies_behind_the_version_is_passed_over(loops: str) -> None:
    pipeline = tiny_pipeline()
    log: Log = [(n, Example("a", "k", 0, 1, 0.5, 0, [n, 1.0], TinyFeatures.schema, n > 2, "label")) for n in range(6)]
    again = Learner(pipeline)
    at_once(again, log[:4], set())
    at_once(again, log, set())
    whole = Learner(pipeline)
    one_by_one(whole, log)
    assert state_of(again) == state_of(whole)


def test_the_model_is_called_once_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the law would hold nothing against anything."""
    learner = Learner(tiny_pipeline(model=logistic, baseline_examples=1_000))
    assert learner._fused is not None
    monkeypatch.setattr(learner._fused, "learn_vector", lambda *_: pytest.fail("one by one"))
    made = [Example("a", "k", 0, 1, 0.5, 0, [1.0, 2.0], TinyFeatures.schema, True, "label")] * 9
    assert learner.apply_all(range(9), made) == {}
    assert (learner.examples, learner.version) == (9, 9)
