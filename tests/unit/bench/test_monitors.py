"""What the laps say is of turns that lie beside one another."""

import pytest

from bench.monitors import UNWATCHED, WAYS, Cost, Costs, Stream, told
from pipelines.flights import flights

STREAM = Stream("some flights", "flights", flights, [])
BESIDE = "watched beside it, on the same cores"
LAPS = 24


def at_speeds(speeds: list[float], us: float, watching: float = 0.0, unread: float = 0.0) -> Costs:
    """A way that takes so many microseconds of an event, on a machine that is so many times slower in each lap."""
    turns = [Cost(us * speed, us * speed, watching * speed) for speed in speeds]
    return Costs(turns, [unread] * 2)


def rows(found: dict[str, Costs]) -> dict[str, list[str]]:
    about, table = told(STREAM, found)
    assert "24 laps of turns of 0.5 s in 2 rounds" in about
    return {row[0]: row[1:] for row in (line.strip("| ").split(" | ") for line in table.splitlines())}


def test_a_machine_that_is_slow_for_a_lap_slows_all_ways_alike() -> None:
    speeds = [1.0, 3.0, 1.0, 2.0, 1.0, 1.5, 3.0, 1.0, 4.0, 1.2, 1.0, 1.0] * 2
    found = {name: at_speeds(speeds, 100.0) for name in WAYS}
    found[BESIDE] = at_speeds(speeds, 125.0, 30.0, 7.0)
    said = rows(found)
    assert said[BESIDE] == ["7,273", "138", "33", "7", "20% (20% to 20%)", "20%", "20% (20% to 20%)"]
    assert said["watched elsewhere"][4] == "0% (0% to 0%)"
    assert said[UNWATCHED][:2] == ["9,091", "110"]


def test_laps_that_do_not_agree_are_seen_to() -> None:
    """The interval is from the eighth to the eighteenth of 24: 95 % of medians of halves lie within."""
    found = {name: at_speeds([1.0] * LAPS, 100.0) for name in WAYS}
    found[BESIDE] = at_speeds([100.0 / (100.0 - lost) for lost in range(LAPS)], 100.0, 1.0)
    assert rows(found)[BESIDE][4] == "12% (7% to 17%)"


def test_half_of_the_turns_and_a_quarter_of_them_are_quicker() -> None:
    costs = Costs([Cost(float(us), 0.0, 0.0) for us in range(11, 0, -1)], [0.0])
    assert (costs.usual().clock, costs.quick().clock) == pytest.approx((6.0, 3.0))
