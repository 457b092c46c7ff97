"""The benchmarks' own arithmetic, and that they fail where what they measure did not happen."""

import math
from pathlib import Path

import pytest

from bench import page
from bench.latency import MODES, Measured, percentile, result, table
from bench.load import Plan, Seen, Sent
from bench.payments import FEATURES, customer, features_of, number_of, over_days, payment, payments, pipeline
from bench.recovery import some_profiles
from bench.scaling import cost

PLAN = Plan("nowhere:1", rate=10.0, seconds=1.0, first=20, start=100.0)


def test_a_section_replaces_the_last_one_of_its_target_and_nothing_else(tmp_path: Path) -> None:
    at = tmp_path / "page.md"
    at.write_text(
        "a\n<!-- begin: make x -->\nold\n<!-- end: make x -->\nb\n<!-- begin: make y -->\n<!-- end: make y -->"
    )
    page.write("x", "new", at)
    page.write("y", "other", at)
    page.write("x", "newer", at)
    assert at.read_text().split("\n") == [
        *("a", "<!-- begin: make x -->", "newer", "<!-- end: make x -->", "b"),
        *("<!-- begin: make y -->", "other", "<!-- end: make y -->"),
    ]
    with pytest.raises(RuntimeError, match="make z"):
        page.write("z", "lost", at)


@pytest.mark.parametrize("target", ["bench-kernels", "bench-latency", "bench-recovery", "bench-scaling", "bench-soak"])
def test_the_page_has_a_place_for_every_benchmark(target: str) -> None:
    text = page.PAGE.read_text("utf-8")
    assert f"<!-- begin: make {target} -->" in text
    assert f"<!-- end: make {target} -->" in text


def test_percentiles_are_by_nearest_rank() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.99, 0.999, 1.0)] == [50.0, 99.0, 100.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0


def test_a_latency_is_from_when_the_event_was_due_however_late_it_was_sent() -> None:
    seen = [Seen(number, 0, PLAN.due(number) + 0.25) for number in PLAN.numbers]
    made = result(MODES[0], PLAN, seen, Sent(10, 10, [0.2] * 10), cores=0.5, warmup=0.4)
    assert made.seconds == pytest.approx([0.25] * 6)
    assert made.kept_up


def test_the_first_of_repeated_predictions_counts() -> None:
    seen = [Seen(number, 0, PLAN.due(number) + wait) for wait in (0.1, 9.0) for number in PLAN.numbers]
    made = result(MODES[0], PLAN, seen, Sent(10, 10, [0.0] * 10), cores=0.5, warmup=0.0)
    assert made.seconds == pytest.approx([0.1] * 10)


@pytest.mark.parametrize(("predicted", "events", "labels"), [(9, 10, 10), (10, 9, 10), (10, 10, 9)])
def test_a_latency_of_fewer_events_than_planned_is_none(predicted: int, events: int, labels: int) -> None:
    seen = [Seen(number, 0, 200.0) for number in PLAN.numbers[:predicted]]
    with pytest.raises(RuntimeError, match="expected 10 of each"):
        result(MODES[0], PLAN, seen, Sent(events, labels, [0.0] * events), cores=0.5, warmup=0.0)


def test_a_worker_that_falls_behind_has_not_kept_up() -> None:
    growing = [number / 1_000 for number in range(1_000)]
    assert not Measured(MODES[0], 1_000, growing, [0.0], 1.0).kept_up
    assert "missed" in table([Measured(MODES[2], 1_000, growing, [0.0], 1.0)], "x")
    assert "met" in table([Measured(MODES[2], 1_000, [0.02] * 1_000, [0.0], 1.0)], "x")


def test_payments_follow_from_their_numbers() -> None:
    made = [payment(number, 100, at=1_700_000_000_000 + number) for number in range(1_000)]
    assert [number_of(event.payment) for event in made] == list(range(1_000))
    assert {event.customer for event in made} == {customer(number) for number in range(100)}
    assert 0.2 < sum(event.amount > 70 for event in made) / 1_000 < 0.8


def test_there_are_as_many_features_as_asked_for() -> None:
    assert [len(pipeline(features_of(number)).feature_set.names) for number in (10, 50, 200)] == [10, 50, 200]


def test_profiles_for_the_changelog_are_real_ones() -> None:
    dumped = some_profiles()
    assert len(dumped) == 500
    assert len(set(dumped)) == 500
    assert payments.feature_set.load("c", dumped[0]).ints[0] > 0


def test_a_cost_is_of_events_that_were_all_learned() -> None:
    found = cost(pipeline(FEATURES), over_days(800, 10, 1.0), {})
    assert all(math.isfinite(us) and us >= 0 for us in found)
