"""From a producer's mistake to the draft of its post-mortem, on a real Kafka: alarms, one reaction, what people see."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from click.testing import CliRunner

from app.cli import main
from app.worker import prepared
from learning.records import Control, Example, decode_log
from learning.reports import Incident, Report
from streaming.config import EngineConfig
from tests.chaos.checker import check, truth
from tests.chaos.run import Run
from tests.integration import incident_run
from tests.integration.incident_run import AN_HOUR, CHANGE, FLIGHTS, START

pytestmark = pytest.mark.timeout(240)

HOUR_MS = 3_600_000
CHANGED_MS = int(START.timestamp() * 1000) + CHANGE * HOUR_MS


@pytest.fixture
def run(kafka: str, tmp_path: Path) -> Iterator[Run]:
    made = Run(kafka, tmp_path, incident_run.reacting)
    # One partition, so that event time is the same for all, however fast it is read.
    made.config = EngineConfig(bootstrap=kafka, app_id=f"headwater-{made.name}", partitions=1)
    yield made
    made.end()


def headwater(run: Run, *arguments: str) -> str:
    """What a command says; in this process, since starting one takes seconds."""
    settings = {
        "HEADWATER_BROKER": run.config.bootstrap,
        "HEADWATER_PIPELINE": "tests.integration.incident_run:pipeline",
        "HEADWATER_TEST_RUN": run.name,
        "HEADWATER_WEB_PORT": "1",
    }
    with patch.object(incident_run, "pipeline", run.pipeline):
        done = CliRunner().invoke(main, arguments, env=settings)
    assert done.exit_code == 0, done.output
    return done.stdout


async def flown(run: Run) -> None:
    """Everything is produced, predicted, learned and reported; the model had converged before it was watched."""
    items = list(incident_run.history())
    assert await prepared(run.pipeline, run.config) == 1
    run.start("incident_run:pipeline")
    first = 6 * AN_HOUR  # three hours of events, with their labels
    await run.produce(items[:first])
    await run.until(first // 2, first // 2 - AN_HOUR)
    await run.produce(items[first:], seconds=5)
    await run.until(FLIGHTS, FLIGHTS)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = [msgspec.json.decode(record.value, type=Report) for record in await run.read(run.pipeline.reports_topic)]
        if told and told[-1].examples >= FLIGHTS:
            assert told[-1].coverage == 1.0, "every flight has landed"
            return
        await asyncio.sleep(0.5)
    pytest.fail(f"no report is of all {FLIGHTS} examples: {run.last_words()}")


async def log_of(run: Run) -> list[tuple[int, Any]]:
    return [(record.offset, decode_log(record.value)) for record in await run.read(run.pipeline.training_log_topic)]


def test_a_changed_unit_is_one_incident_with_its_cause_and_one_reaction(run: Run) -> None:
    asyncio.run(flown(run))
    # The reaction is told of when the log has been watched as far as there.
    records = asyncio.run(run.there(run.pipeline.incidents_topic, words=b"relearn by"))
    incident = msgspec.json.decode(records[-1].value, type=Incident)
    assert {record.key.decode() for record in records} == {incident.id}, "one incident"
    signals = {alarm.signal.rpartition(":")[2] for alarm in incident.alarms}
    # What the predictions make of the new distances depends on how far behind its log the model is meanwhile.
    assert signals in ({"distance", "loss"}, {"prediction", "loss"})
    assert len(incident.alarms) == 2
    assert (incident.cause, incident.state) == ("data", "open")
    assert -3 * HOUR_MS <= incident.since_ms - CHANGED_MS <= HOUR_MS

    log = asyncio.run(log_of(run))
    controls = [(offset, record) for offset, record in log if isinstance(record, Control)]
    ((offset, control),) = controls
    (loss,) = [alarm for alarm in incident.alarms if alarm.kind == "loss"]
    assert (control.action, control.by) == ("relearn", "headwater")
    assert loss.id in control.why
    assert control.since is not None
    again = [o for o, record in log if isinstance(record, Example) and control.since <= o < loss.offset]
    assert 300 <= len(again) < 364
    assert any(f"relearn by headwater at offset {offset}" in event for event in incident.events)
    expected = truth(run.pipeline, incident_run.history())
    assert check(run.pipeline, expected, asyncio.run(run.settled(expected))).wrong() == {}

    draft = headwater(run, "incident", incident.id)
    for words in (f"# Incident {incident.id}", "**data**", "## Timeline (UTC)", "| distance |", "relearn since offset"):
        assert words in draft
    evidence = json.loads(headwater(run, "incident", incident.id, "--json"))["evidence"]
    assert evidence["inputs"][0]["name"] == "distance"
    assert evidence["inputs"][0]["mean"] > 500 * evidence["inputs"][0]["mean_before"]
    (moved,) = [each for each in evidence["slices"] if each["name"].startswith("distance >= ")]
    assert moved["share_before"] == pytest.approx(0.25, abs=0.01)
    assert moved["share"] > 0.8, "all that came in metres, and what chance put before them"
    assert moved["loss"] > 3 * moved["loss_before"]
    assert evidence["since"]["quality"]["log_loss"] > evidence["before"]["quality"]["log_loss"]
    assert [offset for offset, _ in evidence["controls"]] == [offset]
    assert [opening["partition"] for opening in evidence["openings"]] == [0]
    assert incident.id in headwater(run, "incident")

    frame = headwater(run, "top", "--once")
    for words in (f"Headwater {run.name}", f"open incident {incident.id}", "distance", "Log loss"):
        assert words in frame
    assert f"open incident {incident.id} (data)" in headwater(run, "status")
