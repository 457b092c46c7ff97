"""What the turns say is of those in which the machine was left alone."""

import pytest

from bench.monitors import UNWATCHED, WAYS, Cost, Costs, Stream, told
from pipelines.flights import flights

STREAM = Stream("some flights", "flights", flights, [])
BESIDE = "watched beside it, on the same cores"


def at_speeds(rounds: list[list[float]], us: float, watching: float = 0.0, unread: float = 0.0) -> Costs:
    """A way that takes so many microseconds of an event, on a machine that is so many times slower in each turn."""
    turns = [[Cost(us * speed, us * speed, watching * speed) for speed in speeds] for speeds in rounds]
    return Costs(turns, [unread] * len(rounds))


def rows(found: dict[str, Costs]) -> dict[str, list[str]]:
    about, table = told(STREAM, found)
    assert "24 turns of 0.5 s in 2 rounds" in about
    return {row[0]: row[1:] for row in (line.strip("| ").split(" | ") for line in table.splitlines())}


def test_turns_of_a_busy_machine_say_nothing() -> None:
    quiet = [[1.0] * 12, [1.0] * 12]
    found = {name: at_speeds(quiet, 100.0) for name in WAYS}
    busy = [[1.0, 3.0, 1.0, 2.0, 1.0, 1.5, 3.0, 1.0, 4.0, 1.2, 1.0, 1.1], [1.0] * 6 + [2.0] * 6]
    found[BESIDE] = at_speeds(busy, 125.0, 30.0, 7.0)
    said = rows(found)
    assert said[BESIDE] == ["8,000", "125", "30", "7", "20% (20% to 20%)", "20% (20% to 20%)"]
    assert said["watched elsewhere"][:2] == ["10,000", "100"]
    assert said[UNWATCHED][:2] == ["10,000", "100"]


def test_rounds_that_do_not_agree_are_seen_to() -> None:
    found = {name: at_speeds([[1.0] * 12, [1.0] * 12], 100.0) for name in WAYS}
    found[BESIDE] = at_speeds([[1.25] * 12, [2.0] * 12], 100.0, 1.0)
    assert rows(found)[BESIDE][4] == "20% (20% to 50%)"


def test_a_quarter_of_the_turns_is_quicker() -> None:
    costs = Costs([[Cost(float(us), 0.0, 0.0) for us in range(11, 0, -1)]], [0.0])
    assert costs.quick().clock == pytest.approx(3.0)
