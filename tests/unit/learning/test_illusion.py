"""What resetting at alarms is worth, on a stream where it is worth something and on one where it is not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from river import linear_model, preprocessing

from features import field
from learning.illusion import Illusion, compare
from pipelines.definition import Event, Label, Pipeline

START = datetime(2024, 1, 1, tzinfo=UTC)
A_DAY = 320


class Shot(Event, topic="shots", key="range", id="number", time="at"):
    number: int
    range: str
    at: datetime
    x: float


class Hit(Label, topic="hits", key="range", id="number", time="at"):
    number: int
    range: str
    at: datetime
    outcome: bool


def model() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


RANGE = Pipeline(
    name="range",
    event=Shot,
    label=Hit,
    horizon=timedelta(hours=1),
    features=[field("x")],
    model=model,
    baseline_examples=A_DAY,
)


def stream(days: int, turned: int) -> Iterator[Shot | Hit]:
    rng = Random(3)
    for number in range(days * A_DAY):
        at = START + number * timedelta(days=1) / A_DAY
        x = rng.gauss(0.0, 1.0)
        up = x > 0.0 if number < turned * A_DAY else x < 0.0
        yield Shot(number=number, range="a", at=at, x=x)
        yield Hit(number=number, range="a", at=at, outcome=up == (rng.random() < 0.9))


def compared(days: int, turned: int) -> Illusion:
    return compare(RANGE, lambda: stream(days, turned))


def test_a_rule_that_turns_round_is_an_alarm_and_the_reset_is_shown_beside_the_others() -> None:
    result = compared(22, 15)
    assert [alarm.signal for alarm in result.alarms][:1] == ["loss"]
    assert result.resets == len(result.alarms)
    assert result.examples == 22 * A_DAY
    measured = [each["log_loss"] for each in (result.at_alarms, result.never, result.periodic)]
    assert len(set(measured)) == 3


def test_without_alarms_all_three_are_the_same() -> None:
    result = compared(14, 99)
    assert (result.alarms, result.resets) == ([], 0)
    assert result.at_alarms == result.never == result.periodic
