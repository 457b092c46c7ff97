"""What is wrong with topics is found and said, each with its remedy."""

from pipelines.flights import flights
from streaming.topics import TopicSpec, problems, topics_of

SPECS = topics_of(flights, "headwater-flights", 4)
COUNTS = {spec.name: spec.partitions for spec in SPECS}


def test_topics_as_they_are_created_are_right() -> None:
    assert problems(SPECS, COUNTS) == []
    assert [spec.about for spec in SPECS[:2]] == ["events", "labels"]


def test_other_partition_counts_are_right_as_long_as_they_agree() -> None:
    assert problems(SPECS, {spec.name: 7 if spec.as_events else 1 for spec in SPECS}) == []


def test_every_missing_topic_is_named_with_the_command_that_creates_it() -> None:
    found = problems(SPECS, {})
    assert len(found) == len(SPECS)
    for spec, problem in zip(SPECS, found, strict=True):
        assert problem.startswith(f"topic {spec.name} ({spec.about}) does not exist")
        assert "headwater topics create" in problem


def test_counts_that_differ_from_the_events_topic_are_named() -> None:
    found = problems(SPECS, {**COUNTS, "arrivals": 3, "headwater-flights-pending-changelog": 5})
    assert [problem.split(";")[0] for problem in found] == [
        "topic arrivals has 3 partitions, but its events topic departures has 4",
        "topic headwater-flights-pending-changelog has 5 partitions, but its events topic departures has 4",
    ]


def test_the_log_must_have_one_partition() -> None:
    (problem,) = problems(SPECS, {**COUNTS, "flights.training-log": 4})
    assert "has 4 partitions, expected 1, because it is one ordered log" in problem


def test_without_the_events_topic_only_its_absence_is_a_problem() -> None:
    specs = (TopicSpec("events", 4), TopicSpec("labels", 4))
    assert problems(specs, {"labels": 3}) == [
        "topic events () does not exist; create it with `headwater topics create`"
    ]
