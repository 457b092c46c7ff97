"""The board stays small whatever is pushed, and keeps what matters."""

import itertools

from app.live import Board
from learning.records import Example, Prediction
from learning.reports import Alarm, FieldReport, Incident, Report


def report(second: int, *alarms: Alarm) -> Report:
    return Report("p", second * 1_000, version=second, fields=[FieldReport("x", "feature", 1)], alarms=list(alarms))


def alarm(number: int) -> Alarm:
    return Alarm(f"a{number}", "loss", "loss", "SR", number, number, 1, number, 2.0, 1.0, "The loss rose.")


def incident(number: int, state: str) -> Incident:
    return Incident(f"i{number}", "p", state, number, number, 0, "data", "why", [alarm(number)])  # type: ignore[arg-type]


def prediction(name: str) -> Prediction:
    return Prediction(name, "key", 1, 0.5, 7, [1.0], "schema")


def example(name: str, outcome: bool = True) -> Example:
    return Example(name, "key", 1, 2, 0.5, 7, [1.0], "schema", outcome, "label")


def test_history_is_thinned_evenly_and_keeps_its_ends() -> None:
    board = Board("p", points=50, span_ms=10**9)
    for second in range(10_000):
        board.add_report(report(second))
    walls = [r.wall_ms for r in board.reports()]
    assert 50 <= len(walls) <= 100
    assert walls == sorted(walls)
    assert walls[-1] == 9_999_000
    assert walls[0] < 500_000
    gaps = [b - a for a, b in itertools.pairwise(walls)]
    assert max(gaps) < 600_000  # 10,000 s over at least 25 points
    assert board.thinned > 0


def test_history_forgets_what_is_older_than_its_span() -> None:
    board = Board("p", points=20, span_ms=60_000)
    for second in range(1_000):
        board.add_report(report(second))
    assert board.reports()[0].wall_ms > 999_000 - 60_000 - 40 * 1_000


def test_history_goes_on_where_a_new_owner_has_a_clock_that_is_behind() -> None:
    board = Board("p", points=20)
    for second in [*range(1_000, 1_030), *range(500, 540)]:
        board.add_report(report(second))
    assert board.latest is not None
    assert board.latest.wall_ms == 539_000
    assert board.reports()[-1].wall_ms == 539_000


def test_newest_report_is_whole_and_history_is_light() -> None:
    board = Board("p")
    board.add_report(report(1, alarm(1)))
    assert board.latest is not None
    assert board.latest.fields
    assert board.reports()[0].fields == []
    assert board.alarms() == [alarm(1)]


def test_alarms_are_those_of_the_last_reports_and_incidents_each_once() -> None:
    board = Board("p")
    board.add_incident(incident(500, "open"))
    for number in range(300):
        board.add_report(report(number, alarm(number), alarm(number + 1)))
    assert len(board.alarms()) == 100
    assert [a.id for a in board.alarms()][-1] == "a300"


def test_incidents_are_replaced_by_their_next_record_and_open_ones_stay() -> None:
    board = Board("p")
    board.add_incident(incident(0, "open"))
    for number in range(1, 200):
        board.add_incident(incident(number, "open"))
        board.add_incident(incident(number, "closed"))
    assert len(board.incidents()) == 51
    assert board.incidents()[0].id == "i199"
    assert board.incidents()[-1] == incident(0, "open")


def test_recent_predictions_get_their_outcome() -> None:
    board = Board("p", waiting=2, resolved=2)
    board.add_predictions([prediction("a"), prediction("b"), prediction("c")])
    assert [seen.id for seen in board.recent()] == ["c", "b"]
    board.add_outcome(example("c"))
    board.add_outcome(example("a", outcome=False))  # no longer among those that wait, and known all the same
    assert [(seen.id, seen.outcome) for seen in board.recent()] == [("b", None), ("a", False), ("c", True)]
    board.add_outcome(example("d"))
    assert [seen.id for seen in board.recent()] == ["b", "d", "a"]
