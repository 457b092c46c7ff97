"""What the laps say is of turns that lie beside one another."""

import pytest

from bench.monitors import BESIDE, UNWATCHED, WAYS, Cost, Costs, Stream, told
from pipelines.flights import flights

STREAM = Stream("some flights", "flights", flights, [])
LAPS = 24


def at_speeds(speeds: list[float], us: float, watching: float = 0.0, unread: float = 0.0) -> Costs:
    """A way that takes so many microseconds of an event, on a machine that is so many times slower in each lap."""
    turns = [Cost(us * speed, us * speed, watching * speed) for speed in speeds]
    return Costs(turns, [Cost(100.0 * speed, 100.0 * speed, 0.0) for speed in speeds], [unread] * 2)


def rows(found: dict[str, Costs]) -> dict[str, list[str]]:
    about, table = told(STREAM, found)
    assert "medians of turns of 1 s" in about
    return {row[0]: row[1:] for row in (line.strip("| ").split(" | ") for line in table.splitlines())}


def test_a_machine_that_is_slow_for_a_lap_slows_all_ways_alike() -> None:
    speeds = [1.0, 3.0, 1.0, 2.0, 1.0, 1.5, 3.0, 1.0, 4.0, 1.2, 1.0, 1.0] * 2
    found = {name: at_speeds(speeds, 100.0) for name in WAYS}
    found[BESIDE] = at_speeds(speeds, 125.0, 30.0, 7.0)
    said = rows(found)
    assert said[BESIDE] == ["24", "7,273", "138", "33", "7", "20% (20% to 20%)", "20%", "20% (20% to 20%)"]
    assert said["watched elsewhere"][5] == "0% (0% to 0%)"
    assert said[UNWATCHED][:3] == ["24", "9,091", "110"]


def test_laps_that_do_not_agree_are_seen_to() -> None:
    """The interval is from the eighth to the eighteenth of 24: 95 % of medians of halves lie within."""
    found = {name: at_speeds([1.0] * LAPS, 100.0) for name in WAYS}
    found[BESIDE] = Costs(
        [Cost(100.0 / (100.0 - lost), 1.0, 1.0) for lost in range(LAPS)], [Cost(1.0, 1.0, 0.0)] * LAPS, [0.0]
    )
    assert rows(found)[BESIDE][5] == "12% (7% to 17%)"


def test_half_of_the_turns_and_a_quarter_of_them_are_quicker() -> None:
    turns = [Cost(float(us), 0.0, 0.0) for us in range(11, 0, -1)]
    costs = Costs(turns, [Cost(turn.clock / 2, 0.0, 0.0) for turn in turns], [0.0])
    assert (costs.usual().clock, costs.lost_when_quick()) == pytest.approx((6.0, 0.5))


def test_a_way_that_has_fewer_turns_is_compared_with_those_beside_them() -> None:
    found = {name: at_speeds([1.0] * LAPS, 100.0) for name in WAYS}
    found["watched by itself"] = Costs([Cost(300.0, 300.0, 0.0)] * 6, [Cost(150.0, 150.0, 0.0)] * 6, [0.0])
    assert rows(found)["watched by itself"][5] == "50% (50% to 50%)"
