"""`headwater explain` and `headwater export` on a real Kafka, held against the log that they read."""

import asyncio
import csv
import io
import itertools
import json
import math
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from click.testing import CliRunner
from msgspec.structs import replace
from pyarrow import parquet
from rich.console import Console
from river import tree

from agents.snapshots import Shelf
from app import explain as explaining
from app import export as exporting
from app import replay
from app.cli import main
from learning.explain import TOLERANCE
from learning.negatives import is_kept
from learning.records import Control, Correction, Example, LogRecord, Prediction, decode_log, encode
from pipelines.definition import Pipeline
from pipelines.flights import Departure, history
from tests.chaos.run import PARTITIONS
from tests.doubles import HOUR, TinyFeatures, tiny_pipeline
from tests.integration.commands import Told
from tests.integration.flights_run import FEATURES, Fragile, named

pytestmark = pytest.mark.timeout(420)

FLIGHTS = 2_000
CHANGED = 5
DAY = datetime(2013, 1, 2, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)


class Explained(Told):
    """A run whose predictions are explained."""

    async def lessons(self) -> list[tuple[int, LogRecord]]:
        return [(r.offset, decode_log(r.value)) for r in await self.read(self.pipeline.training_log_topic)]

    async def forge(self, *predictions: Prediction) -> None:
        """Write predictions as a worker with another guarantee, model or definition may have."""
        producer = AIOKafkaProducer(bootstrap_servers=self.config.bootstrap)
        await producer.start()
        for prediction in predictions:
            await producer.send_and_wait(self.pipeline.predictions_topic, encode(prediction), prediction.key.encode())
        await producer.stop()

    async def forget(self, topic: str, offset: int, partitions: int = 1) -> None:
        """Delete a topic's records before an offset (-1: all), as retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.config.bootstrap)
        await admin.start()
        records = RecordsToDelete(before_offset=offset)
        await admin.delete_records({TopicPartition(topic, number): records for number in range(partitions)})
        await admin.close()


@pytest.fixture
def told(kafka: str, tmp_path: Path) -> Iterator[Explained]:
    made = Explained(kafka, tmp_path)
    yield made
    made.end()


def flights() -> list[Any]:
    """The first departures of the year, and the arrivals among the items that follow them."""
    departed: set[str] = set()
    items: list[Any] = []
    for item in itertools.islice(history(), 2 * FLIGHTS):
        if isinstance(item, Departure) and len(departed) < FLIGHTS:
            departed.add(item.flight_id)
            items.append(item)
        elif not isinstance(item, Departure) and item.flight_id in departed:
            items.append(item)
    return items


def changed(items: list[Any]) -> list[Any]:
    """Arrivals once more, as if their time had been wrong: every outcome is turned around."""
    landed = [item for item in items if not isinstance(item, Departure)][-CHANGED:]
    return [
        msgspec.structs.replace(item, arrival_delay=0.0 if item.outcome else 60.0, arrived_at=item.arrived_at)
        for item in landed
    ]


def assert_explained(said: Any, prediction: Prediction, log: list[tuple[int, LogRecord]]) -> None:
    """It was made again to the last bit, its parts add up, and its place in history is what the log says."""
    (once,) = said["occurrences"]
    assert (once["equal"], once["differences"], once["again"]) == (True, [], prediction.prediction)
    assert (once["version"], once["prediction"]) == (prediction.version, prediction.prediction)
    (part,) = once["explanation"]["parts"]
    assert once["explanation"]["method"] == "linear"
    assert [term["value"] for term in part["terms"]] == prediction.features == once["features"]
    contributions = [part["intercept"], *(term["contribution"] for term in part["terms"])]
    assert math.fsum(contributions) == part["score"]
    assert isinstance(prediction.prediction, float)
    assert 1 / (1 + math.exp(-part["score"])) == pytest.approx(prediction.prediction, rel=TOLERANCE, abs=TOLERANCE)
    examples = [(offset, record) for offset, record in log if isinstance(record, Example)]
    before = [pair for pair in examples if pair[0] < prediction.version]
    place = once["history"]
    assert place["examples_before"] == len(before)
    assert place["examples_after"] == len(examples) - len(before)
    assert (place["example_before"] or {}).get("offset") == (before[-1][0] if before else None)
    said_of = [(offset, record) for offset, record in log if not isinstance(record, Control)]
    mentions = [(offset, record.outcome) for offset, record in said_of if record.id == prediction.id]
    assert [(outcome["offset"], outcome["outcome"]) for outcome in said["outcomes"]] == mentions


def milliseconds(when: datetime | None) -> int | None:
    return None if when is None else round(when.timestamp() * 1000)


def assert_exported(path: Path, run: Explained, log: list[tuple[int, LogRecord]]) -> None:
    """Every cell is what the log has, and the corrections are with their examples."""
    table = parquet.read_table(path)
    names = run.pipeline.feature_set.names
    corrections = {r.id: (r.outcome, r.label_time_ms) for _, r in log if isinstance(r, Correction)}
    fields = ("id", "key", "time_ms", "label_time_ms", "outcome", "prediction", "version", "source", "schema")
    expected = [
        (*(getattr(r, name) for name in fields), offset, *corrections.get(r.id, (None, None)), True, *r.features)
        for offset, r in log
        if isinstance(r, Example)
    ]
    assert table.column_names[13:] == list(names)
    rows = [tuple(milliseconds(c) if isinstance(c, datetime) else c for c in row.values()) for row in table.to_pylist()]
    assert rows == expected
    assert sum(row[10] is not None for row in rows) == CHANGED


def assert_csv(path: Path, log: list[tuple[int, LogRecord]]) -> None:
    """The day's examples, in the log's order, with numbers that read back the same."""
    begin, end = milliseconds(DAY) or 0, milliseconds(NEXT) or 0
    expected = [r for _, r in log if isinstance(r, Example) and begin <= r.time_ms < end]
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))[1:]
    assert len(expected) > 100
    assert [row[0] for row in rows] == [r.id for r in expected]
    assert {row[12] for row in rows} == {"true"}
    assert [[float(cell) for cell in row[13:]] for row in rows] == [r.features for r in expected]
    assert [float(row[5]) for row in rows] == [r.prediction for r in expected]
    assert [row[4] for row in rows] == [str(r.outcome).lower() for r in expected]


def together(run: Explained, *commands: tuple[str, ...]) -> list["subprocess.CompletedProcess[str]"]:
    """Call commands side by side, since most of each is its start."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda command: run.called(*command), commands))


def test_predictions_are_explained_and_the_log_is_exported(told: Explained, tmp_path: Path) -> None:
    items = flights()
    labels = sum(not isinstance(item, Departure) for item in items)

    async def worked() -> tuple[list[Prediction], list[tuple[int, LogRecord]]]:
        await told.prepare()
        early, late = items[: len(items) // 2], items[len(items) // 2 :]
        await told.produce(early)
        worker = told.start()
        learned = sum(not isinstance(item, Departure) for item in early)
        await told.until(len(early) - learned, learned)  # so that later flights are predicted at a later version
        await told.produce(late)
        await told.until(FLIGHTS, labels)
        await told.produce(changed(items))
        await told.until(FLIGHTS, labels + CHANGED)
        worker.terminate()
        made = await told.read(told.pipeline.predictions_topic)
        return [msgspec.json.decode(r.value, type=Prediction) for r in made], await told.lessons()

    predictions, log = asyncio.run(worked())
    assert len(predictions) == FLIGHTS
    first, last = (choose(predictions, key=lambda p: p.version) for choose in (min, max))
    assert last.version > 100
    corrections = {record.id for _, record in log if isinstance(record, Correction)}
    corrected = max((p for p in predictions if p.id in corrections), key=lambda p: p.version)
    whole, day, none = tmp_path / "all.parquet", tmp_path / "day.csv", tmp_path / "none.parquet"

    commands = together(
        told,
        *(("explain", p.id, "--json") for p in (first, last, corrected)),
        ("explain", "no-such-flight"),
        ("export", "--out", str(whole), "--json"),
        ("export", "--out", str(day), "--from", "2013-01-02", "--to", "2013-01-03T00:00:00Z"),
        ("export", "--out", str(none), "--from", "2099-01-01"),
    )
    *explained, unknown, exported, _, empty = commands
    for prediction, done in zip((first, last, corrected), explained, strict=True):
        assert done.returncode == 0, done.stderr
        assert_explained(json.loads(done.stdout), prediction, log)
    assert unknown.returncode == 1
    assert f"searched all of {told.pipeline.predictions_topic} (4 partitions" in unknown.stderr
    assert "headwater tail predictions" in unknown.stderr

    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["rows"] == labels
    assert_exported(whole, told, log)
    assert_csv(day, log)
    assert empty.returncode == 0
    assert "no example in this period" in empty.stderr
    assert parquet.read_table(none).num_rows == 0
    assert parquet.read_schema(none) == parquet.read_schema(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "all.parquet",
        "day.csv",
        "none.parquet",
        "worker-0.log",
    ]

    assert_said_what_differs(told, last)
    assert_what_is_gone_is_said(told, corrected, whole)


def what(occurrence: Any) -> list[str]:
    return [difference["what"] for difference in occurrence["differences"]]


def occurrences(told: Explained, name: str, pipeline: Pipeline | None = None) -> Any:
    """What `explain --json` would say, without a process of its own."""
    of = pipeline or told.pipeline
    inquiry = asyncio.run(explaining.inquire(of, told.config, name, lambda _: replay.nothing))
    return explaining.as_dict(of, inquiry)["occurrences"]


def assert_said_what_differs(told: Explained, last: Prediction) -> None:
    """Predictions that no worker of this pipeline and log can have made, and one that is there twice."""
    assert isinstance(last.prediction, float)
    near = msgspec.structs.replace(last, id="near", prediction=math.nextafter(last.prediction, 2.0))
    beyond = msgspec.structs.replace(last, id="beyond", version=10**9)
    asyncio.run(told.forge(last, near, beyond))
    shown = told.called("explain", last.id)
    assert shown.returncode == 0, shown.stderr
    words = ("It is there 2 times", "equal to the last bit", "link: logistic", "mean(departure_delay,3h)", "outcome")
    assert [word for word in words if word not in shown.stdout] == []

    assert [once["equal"] for once in occurrences(told, last.id)] == [True, True]
    (once,) = occurrences(told, "near")
    assert (once["equal"], what(once)) == (False, ["value"])
    assert "1 ulps apart" in once["differences"][0]["message"]
    assert what(occurrences(told, "beyond")[0])[0] == "version beyond the log"
    once = occurrences(told, last.id, named(told.name, model=Fragile))[0]
    assert what(once) == ["value"]
    assert "now Fragile" in once["differences"][0]["message"]
    once = occurrences(told, last.id, named(told.name, features=FEATURES[1:]))[0]
    assert what(once) == ["schema", "feature count"]
    assert once["explanation"] is None


def assert_what_is_gone_is_said(told: Explained, corrected: Prediction, whole: Path) -> None:
    """The prediction is found in the log when its topic has let go of it, and then the log's beginning goes too."""
    log = told.pipeline.training_log_topic
    asyncio.run(told.forget(told.pipeline.predictions_topic, -1, PARTITIONS))
    (once,) = occurrences(told, corrected.id)
    assert (once["found"]["topic"], once["equal"]) == (log, True)
    asyncio.run(told.forget(log, 50))
    (once,) = occurrences(told, corrected.id)
    assert (what(once), once["again"], once["explanation"]) == (["log truncated"], None, None)
    failed, forced = together(told, ("explain", corrected.id), ("export", "--out", str(whole), "--force"))
    assert failed.returncode == 1
    assert "made     " in failed.stdout
    assert "begins at offset 50, expected 0" in failed.stderr
    assert forced.returncode == 0
    assert "begins at offset 50" in forced.stderr
    assert parquet.read_table(whole)["offset"][0].as_py() >= 50


class Paper(replay.Topic):
    """A training log without Kafka; a record of None is one that cannot be read."""

    def __init__(self, *records: LogRecord | None) -> None:
        self.name, self.begins, self.ends = "paper", {0: 0}, {0: len(records)}
        self._records = records

    async def records(
        self, start: int = 0, stop: int | None = None, progress: replay.Progress = replay.nothing
    ) -> AsyncGenerator[Any, None]:
        for offset, record in list(enumerate(self._records))[start:stop]:
            yield SimpleNamespace(offset=offset, value=b"?" if record is None else encode(record))


def example(number: int, **changes: Any) -> Example:
    """A lesson of the tiny pipeline, an hour after its event."""
    features = [float(number % 7), float(number)]
    schema, at = TinyFeatures.schema, number * HOUR
    made = Example(f"e{number}", "k", at, at + HOUR, 0.5, 0, features, schema, number % 7 > 3, "label")
    return msgspec.structs.replace(made, **changes)


def test_replay_goes_on_from_an_earlier_version_and_not_from_a_later_one() -> None:
    records = [example(number, schema="another" if number == 5 else TinyFeatures.schema) for number in range(30)]
    log, pipeline, seen = Paper(*records[:10], None, *records[10:]), tiny_pipeline(), list[int]()

    async def scenario() -> None:
        whole = await replay.learner_at(pipeline, log, 25)
        early = await replay.learner_at(pipeline, log, 12)
        before = early.predict([1.0, 2.0])
        later = await replay.learner_at(pipeline, log, 25, start=early, see=lambda offset, _: seen.append(offset))
        assert later.predict([1.0, 2.0]) == whole.predict([1.0, 2.0]) != before
        assert (later.version, later.examples) == (25, 23)  # one was unreadable, one of other features
        with pytest.raises(ValueError, match="cannot go back from version 25 to 24"):
            await replay.learner_at(pipeline, log, 24, start=later)

    asyncio.run(scenario())
    assert seen == list(range(12, 25))


def no_bar(_: str) -> replay.Progress:
    return replay.nothing


def test_a_tree_is_explained_by_what_changes_without_each_feature() -> None:
    pipeline = tiny_pipeline(model=lambda: tree.HoeffdingTreeClassifier(grace_period=10))
    log = Paper(*(example(number) for number in range(200)))
    screen = Console(width=100, record=True, file=io.StringIO())

    async def scenario() -> Any:
        learner = await replay.learner_at(pipeline, log, 150)
        value = learner.predict([6.0, 3.0])
        made = Prediction("e170", "k", 170 * HOUR, value, 150, [6.0, 3.0], TinyFeatures.schema)
        found = [(explaining.Origin("predictions", 0, 7), made)]
        saved = Shelf([], pipeline, (), replay.nothing)
        accounts, mentions = await explaining.account(pipeline, log, "e170", found, bar=no_bar, saved=saved)
        return explaining.Inquiry("e170", accounts, mentions, 1)

    inquiry = asyncio.run(scenario())
    explaining.show(pipeline, inquiry, screen)
    text = screen.export_text()
    for words in (
        "equal to the last bit",
        "do not add up",
        "outcome  False by label",
        "150 examples before it, 50 since",
    ):
        assert words in text
    said = explaining.as_dict(pipeline, inquiry)["occurrences"][0]["explanation"]
    assert said["method"] == "occlusion"
    (part,) = said["parts"]
    assert [term["reference"] for term in part["terms"]] == [
        pytest.approx(sum(example(n).features[index] for n in range(150)) / 150) for index in (0, 1)
    ]


def exported(pipeline: Any, log: Paper, out: Path, period: exporting.Period) -> exporting.Exported:
    """The export of a log without Kafka."""

    async def scenario() -> exporting.Exported:
        return await exporting.write(pipeline, log, out, period, lambda _: replay.nothing)

    return asyncio.run(scenario())


def test_corrections_and_other_features_have_columns_of_their_own(tmp_path: Path) -> None:
    """Also where corrections are learned, when the correction is an example itself."""
    pipeline = tiny_pipeline(task="multiclass")
    first, out = example(1, outcome="red", prediction={"red": 0.25, "blue": 0.75}), tmp_path / "x.parquet"
    log = Paper(
        first,
        example(2, outcome="blue", prediction={}, schema="another"),
        Correction("e1", "k", first.time_ms, 5 * HOUR, "green", previous="red"),
        example(1, outcome="blue", prediction={"red": 0.25, "blue": 0.75}, source="correction", label_time_ms=9 * HOUR),
        example(3, outcome="red", prediction={}),
        Correction("e3", "k", 3 * HOUR, 4 * HOUR, "blue", previous="red"),
    )
    done = exported(pipeline, log, out, exporting.Period(HOUR, 3 * HOUR))
    assert (done.rows, done.corrected, done.other_schema) == (3, 1, 1)
    table = parquet.read_table(out)
    assert table["id"].to_pylist() == ["e1", "e2", "e1"]
    assert table["source"].to_pylist() == ["label", "label", "correction"]
    assert table["corrected_outcome"].to_pylist() == ["blue", None, None]
    assert table["corrected_time"][0].as_py() == datetime(1970, 1, 1, 9, tzinfo=UTC)
    assert table["prediction"].to_pylist()[0] == [("red", 0.25), ("blue", 0.75)]
    assert table["x"].to_pylist() == [1.0, None, 1.0]


@pytest.mark.parametrize(("share", "remedy"), [(0.25, "the weight 4, or correct"), (1.0, "too high probabilities")])
def test_negatives_that_are_left_out_have_no_features_and_the_export_says_what_to_do(
    share: float, remedy: str, tmp_path: Path
) -> None:
    """Also where the share is that of all by now, and the log is of when it was not."""
    pipeline, out = tiny_pipeline(negatives=share), tmp_path / "x.parquet"
    log = Paper(
        example(1, outcome=False), example(2, outcome=False, features=[], kept=False), example(3, schema="another")
    )
    done = exported(pipeline, log, out, exporting.Period())
    assert (done.rows, done.left_out, done.other_schema) == (3, 1, 1)
    table = parquet.read_table(out)
    assert table["kept"].to_pylist() == [True, False, True]
    assert table["x"].to_pylist() == [1.0, None, None]
    pipeline.training_log_topic = "log"
    warnings = list(exporting.warnings_of(pipeline, out, done))
    assert [remedy in warning for warning in warnings] == [False, True]
    assert warnings[1].startswith("1 rows are negatives that are not learned (`kept` is false)")


def test_prediction_whose_example_has_no_vector_cannot_be_made_again_and_why_is_said() -> None:
    """Where its topic has let go of it. The correction of one that was learned after all has the vector."""
    left = example(2, outcome=False, features=[], kept=False)

    def found(*records: LogRecord) -> Any:
        return asyncio.run(explaining.find_example(Paper(*records), "e2", replay.nothing))

    with pytest.raises(click.ClickException, match="at offset 1 of paper, has no vector"):
        found(example(1), left, example(3))
    ((origin, prediction),) = found(left, example(2, outcome=True, source="correction"))
    assert (origin.offset, prediction.features) == (1, [2.0, 2.0])


def test_a_corrected_prediction_is_made_again_and_taken_apart() -> None:
    pipeline, out = tiny_pipeline(negatives=0.5), Console(width=100, record=True, file=io.StringIO())
    records = [example(number) for number in range(60)]
    log = Paper(*(r if r.outcome or is_kept(r.id, 0.5) else replace(r, features=[], kept=False) for r in records))
    name = next(r.id for r in records[50:] if not r.outcome and not is_kept(r.id, 0.5))

    async def scenario() -> Any:
        learner = await replay.learner_at(pipeline, log, 40)
        made = Prediction(name, "k", 0, learner.predict([6.0, 3.0]), 40, [6.0, 3.0], TinyFeatures.schema)
        saved = Shelf([], pipeline, (), replay.nothing)
        found = [(explaining.Origin("predictions", 0, 7), made)]
        accounts, mentions = await explaining.account(pipeline, log, name, found, bar=no_bar, saved=saved)
        return explaining.Inquiry(name, accounts, mentions, 1)

    inquiry = asyncio.run(scenario())
    explaining.show(pipeline, inquiry, out)
    text = out.export_text()
    for words in (
        "equal to the last bit",
        "link: logistic, of the score + log(0.5)",
        "False by label",
        "; not learned",
        "negatives that are not learned",
    ):
        assert words in " ".join(text.split())
    (said,) = explaining.as_dict(pipeline, inquiry)["outcomes"]
    assert said["learned"] is False


def test_file_has_row_groups_and_is_there_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "ROWS", 8)
    log, out, pipeline = Paper(*(example(number) for number in range(20))), tmp_path / "x.parquet", tiny_pipeline()
    exported(pipeline, log, out, exporting.Period())
    assert parquet.ParquetFile(out).num_row_groups == 3
    before = out.read_bytes()
    broken = Paper(*(example(number) for number in range(20)), example(20, outcome="neither true nor false"))
    with pytest.raises(click.ClickException, match="outcome"):
        exported(pipeline, broken, out, exporting.Period())
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x.txt"], "ends in .parquet or .csv"),
        (["--out", "nowhere/x.csv"], "whose folder does not exist"),
        (["--out", "folder.csv"], "which is a folder"),
        (["--out", "old.csv"], "say --force to write over it"),
        (["--out", "x.csv", "--from", "yesterday"], "expected an ISO time"),
        (["--out", "x.csv", "--from", "2013-02-01", "--to", "2013-02-01T00:00:00Z"], "expected --from before --to"),
    ],
)
def test_export_refuses_what_it_cannot_do(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "old.csv").touch()
    done = CliRunner().invoke(main, ["export", *arguments])
    assert done.exit_code != 0
    assert words in " ".join(done.output.split())


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    done = CliRunner().invoke(main, ["export", "--out", str(tmp_path / "x.parquet")])
    assert done.exit_code == 1
    assert "pip install -e '.[export]'" in done.output
