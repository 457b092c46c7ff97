"""`headwater` as people run it: on a real Kafka, as processes, with what they see and the exit codes they get."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app.metrics import parse
from streaming.brokers import answers, free_port
from tests.integration.cli_run import FLIGHTS, UNLABELLED

pytestmark = pytest.mark.timeout(420)

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "app.cli")
PIPELINE = "tests.integration.cli_run:pipeline"
# Where things are on this machine, and what costs time and changes nothing; all other settings are a test's.
OWN = {"HEADWATER_CACHE", "HEADWATER_DATA", "HEADWATER_COMPILED"}
NONE: Mapping[str, str] = {}
ONE_PARTITION = ("training-log", "drift", "snapshots", "summaries", "reports", "incidents", "monitors-changelog")
NOBODY = "127.0.0.1:1"
LABELS = FLIGHTS - len(UNLABELLED)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_") or k in OWN}
    return {**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **settings}


class Answer:
    """What a command said, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in out + err, out + err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refused(self, *words: str, code: int = 1) -> None:
        """It ended with this code and said all of this."""
        assert self.code == code, self.out + self.err
        for word in words:
            assert word in self.err, self.err

    def succeeded(self) -> "Answer":
        assert self.code == 0, self.out + self.err
        return self


class Command:
    """A running `headwater`; as a context manager, ended at the end."""

    def __init__(self, *arguments: str, settings: Mapping[str, str] = NONE, cwd: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=cwd,
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answer(self, patience: float = 60.0) -> Answer:
        """Wait for its end."""
        try:
            out, err = self.process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            pytest.fail(f"still running after {patience:.0f} s: {self.process.args!r}\n{out}\n{err}")
        return Answer(self.process.returncode, out, err)

    def kill(self) -> None:
        """End it, whatever state it is in."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def headwater(*arguments: str, settings: Mapping[str, str] = NONE) -> Answer:
    return Command(*arguments, settings=settings).answer()


def until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def processes(*words: str) -> list[str]:
    """Processes whose command line has one of these words in it."""
    listing = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if any(word in line for word in words)]


def get(url: str) -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


@contextmanager
def interrupts_arrive() -> Iterator[None]:
    """A shell lets background jobs ignore Ctrl-C, and so would their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Run:
    """Topics of one test and the settings that lead to them."""

    def __init__(self, kafka: str) -> None:
        self.name = f"c{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        self.settings = {
            "HEADWATER_BROKER": kafka,
            "HEADWATER_PIPELINE": PIPELINE,
            "HEADWATER_TEST_RUN": self.name,
            "HEADWATER_WEB_PORT": str(self.port),
            "HEADWATER_SESSION_TIMEOUT": "6",
        }
        self.topics = {
            *(
                f"{self.name}.{end}"
                for end in ("departures", "arrivals", "predictions", "training-log", "drift", "snapshots")
            ),
            *(f"{self.name}.{end}" for end in ("summaries", "reports", "incidents")),
            *(f"headwater-{self.name}-{table}-changelog" for table in ("profiles", "pending", "monitors")),
            f"{self.name}.dead-letters",
            f"{self.name}.snapshots",
        }

    def __call__(self, *arguments: str) -> Answer:
        return headwater(*arguments, settings=self.settings)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def samples(self) -> dict[str, float]:
        return dict(parse(get(self.url("/metrics"))[1]))


@pytest.fixture
def run(kafka: str) -> Run:
    return Run(kafka)


# -- topics


def test_topics_are_missed_created_and_found(run: Run) -> None:
    run("topics", "check").refused(*run.topics, "does not exist; create it with `headwater topics create`")
    missing = run("topics", "check", "--json")
    missing.refused()
    assert missing.json["ok"] is False
    assert len(missing.json["problems"]) == len(run.topics)
    created = run("topics", "create", "--json").succeeded().json["created"]
    assert {topic["name"]: topic["partitions"] for topic in created} == {
        name: 1 if name.endswith(ONE_PARTITION) else 4 for name in run.topics
    }
    assert "0 topics created; all are as they should be" in run("topics", "create").succeeded().out
    checked = run("topics", "check", "--json").succeeded().json
    assert (checked["ok"], checked["partitions"], checked["problems"], checked["commands"]) == (True, 4, [], [])
    assert {acl["state"] for acl in checked["acls"]} == {"granted"}  # a broker without ACLs grants everything


async def create(kafka: str, partitions: Mapping[str, int], config: Mapping[str, str] = NONE) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics(
        [NewTopic(name, count, 1, topic_configs=dict(config)) for name, count in partitions.items()]
    )
    await admin.close()


def test_partition_counts_that_differ_are_refused(run: Run, kafka: str) -> None:
    asyncio.run(create(kafka, {f"{run.name}.departures": 4, f"{run.name}.arrivals": 3}))
    said = f"topic {run.name}.arrivals has 3 partitions, but its events topic {run.name}.departures has 4"
    run("topics", "check").refused(said, "they must agree")
    run("worker").refused(said, "they must agree")
    doctor = run("doctor")
    assert doctor.code == 1
    assert said in doctor.out


def test_status_and_tail_name_the_topic_that_is_missing(run: Run) -> None:
    remedy = "does not exist; create it with `headwater topics create`"
    run("status").refused(f"{run.name}.departures {remedy}")
    run("tail", "drift").refused(f"{run.name}.drift {remedy}")
    run("top").refused(f"{run.name}.reports {remedy}")


# -- the loop


@pytest.fixture(scope="module")
def fed(kafka: str) -> Iterator[tuple[Run, Command]]:
    """A worker that has done everything that was produced."""
    run = Run(kafka)
    run("topics", "create").succeeded()
    produced = run("produce", "--limit", str(FLIGHTS), "--json").succeeded()
    assert (produced.json["events"], produced.json["labels"]) == (FLIGHTS, LABELS)
    assert produced.err == ""
    with Command("worker", settings=run.settings) as worker:
        assert until(lambda: get(run.url("/health/live"))[0] == 200), worker.answer(0)
        assert until(lambda: run.samples().get("training_examples_total") == LABELS), run.samples()
        yield run, worker


def test_worker_serves_metrics_and_health(fed: tuple[Run, Command]) -> None:
    run, _ = fed
    assert get(run.url("/health/live")) == (200, '{"live": true}')
    assert get(run.url("/health/ready")) == (200, '{"ready": true}')
    assert get(run.url("/"))[0] == 200
    assert get(run.url("/table"))[0] == 404
    assert until(lambda: 'quality{metric="roc_auc"}' in run.samples())
    samples = run.samples()
    assert (samples["events_total"], samples["predictions_total"]) == (FLIGHTS, FLIGHTS)
    assert samples['labels_total{outcome="matched"}'] == LABELS
    assert 0 <= samples['quality{metric="roc_auc"}'] <= 1


def test_status_shows_no_lag_and_the_workers_numbers(fed: tuple[Run, Command]) -> None:
    run, _ = fed
    seen: list[Any] = []

    def caught_up() -> bool:
        seen.append(run("status", "--json").succeeded().json)
        return all(row["lag"] == 0 for row in seen[-1]["partitions"].values())

    assert until(caught_up, 20), seen[-1]
    status = seen[-1]
    assert len(status["partitions"]) == 8
    assert sum(row["committed"] for row in status["partitions"].values()) == FLIGHTS + LABELS
    assert status["worker"] == {"url": run.url("/metrics"), "answers": True}
    assert status["metrics"]["predictions_total"] == FLIGHTS
    shown = run("status").succeeded().out
    assert f"{run.name}.departures-0" in shown
    assert f"predictions_total {FLIGHTS}" in shown


def test_tail_gives_one_json_document_a_line(fed: tuple[Run, Command]) -> None:
    run, _ = fed
    lines = run("tail", "predictions", "--from-beginning", "--limit", "3").succeeded().out.splitlines()
    values = [json.loads(line)["value"] for line in lines]
    assert len(values) == 3
    assert all(value["id"].startswith("f") and 0 <= value["prediction"] <= 1 for value in values)
    lines = run("tail", "training-log", "--from-beginning", "--limit", "2").succeeded().out.splitlines()
    assert [json.loads(line)["value"]["type"] for line in lines] == ["example", "example"]


def first_line(command: Command) -> str:
    assert command.process.stdout is not None
    return str(command.process.stdout.readline()).strip()


def test_tail_ends_at_ctrl_c(fed: tuple[Run, Command]) -> None:
    with interrupts_arrive(), Command("tail", "--from-beginning", settings=fed[0].settings) as tail:
        assert "value" in json.loads(first_line(tail))
        tail.process.send_signal(signal.SIGINT)
        assert tail.answer().succeeded().err == ""


def test_tail_ends_quietly_when_nobody_reads_on(fed: tuple[Run, Command]) -> None:
    with Command("tail", "--from-beginning", settings=fed[0].settings) as tail:
        first_line(tail)
        assert tail.process.stdout is not None
        assert tail.process.stderr is not None
        tail.process.stdout.close()
        assert tail.process.wait(30) == 1
        assert tail.process.stderr.read() == ""


def test_doctor_finds_all_well(fed: tuple[Run, Command]) -> None:
    run, _ = fed
    report = run("doctor", "--json").succeeded().json
    assert report["ok"] is True
    assert {finding["verdict"] for finding in report["findings"]} == {"ok"}
    looked_at = [f["message"] for f in report["findings"] if f["check"].startswith("partitioner")]
    assert [message.partition(" ")[2] for message in looked_at] == ["records looked at"] * 2


def test_second_worker_on_the_same_port_says_so_last(fed: tuple[Run, Command]) -> None:
    run, first = fed
    second = run("worker")
    assert second.code != 0
    last = second.err.strip().splitlines()[-1]
    assert f"cannot listen on 127.0.0.1:{run.port}" in last
    assert "set HEADWATER_WEB_PORT to a free port" in last
    assert first.process.poll() is None


def test_worker_ends_with_0_when_told_to(fed: tuple[Run, Command]) -> None:
    """Last of the tests on this worker."""
    run, worker = fed
    worker.process.terminate()
    worker.answer(40).succeeded()
    silent = run("status", "--json").succeeded().json
    assert silent["worker"]["answers"] is False
    assert all(row["lag"] == 0 for row in silent["partitions"].values())


def test_produce_fails_when_a_record_is_not_taken(run: Run, kafka: str) -> None:
    asyncio.run(create(kafka, {f"{run.name}.departures": 4}, {"max.message.bytes": "100"}))
    run("topics", "create").succeeded()
    run("produce").refused("Kafka refused: MessageSizeTooLargeError")


async def misplace(kafka: str, topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        right = await producer.send_and_wait(topic, b"{}", b"JFK")
        await producer.send_and_wait(topic, b"{}", b"JFK", partition=(right.partition + 1) % 4)
    finally:
        await producer.stop()


def test_doctor_finds_records_in_the_wrong_partition(run: Run, kafka: str) -> None:
    run("topics", "create").succeeded()
    asyncio.run(misplace(kafka, f"{run.name}.arrivals"))
    report = run("doctor", "--json")
    assert report.code == 1
    assert report.json["ok"] is False
    events, labels = report.json["findings"][-2:]
    assert (events["check"], events["verdict"]) == (f"partitioner of {run.name}.departures", "warning")
    assert (labels["check"], labels["verdict"]) == (f"partitioner of {run.name}.arrivals", "problem")
    assert "1 of 2 records are not in the partition that murmur2 gives their key" in labels["message"]


# -- what goes wrong before anything runs


COMMANDS: Sequence[Sequence[str]] = (
    ("worker",),
    ("status",),
    ("topics", "check"),
    ("produce",),
    ("tail",),
)


def test_no_broker_is_said_with_the_remedy() -> None:
    """Where nobody listens at once; where somebody listens and never answers, after a while."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        started = time.monotonic()
        waiting = [Command(*command, settings={"HEADWATER_BROKER": address}) for command in COMMANDS[:3]]
        refused = [Command(*command, settings={"HEADWATER_BROKER": NOBODY}) for command in COMMANDS]
        for command in refused:
            command.answer(30).refused(f"no Kafka broker answers at {NOBODY}", "headwater kafka up", "HEADWATER_BROKER")
        doctor = headwater("doctor", "--json", settings={"HEADWATER_BROKER": NOBODY})
        assert (doctor.code, doctor.json["ok"], doctor.json["findings"][-1]["check"]) == (1, False, "broker")
        for command in waiting:
            command.answer(40).refused(f"no Kafka broker answers at {address}", "HEADWATER_SECURITY_PROTOCOL")
        assert time.monotonic() - started < 120  # 15 s, and what a busy machine makes of it; without end it must not be


BROKEN = """
from datetime import datetime, timedelta
from river import linear_model
from features import field
from pipelines.definition import Event, Label, Pipeline

class Click(Event, topic="clicks", key="user", time="at"):
    user: str
    at: datetime
    price: float

class Sale(Label, topic="sales", key="user", id="user", time="at"):
    user: str
    at: datetime
    outcome: bool

clicks = Pipeline(name="clicks", event=Click, label=Sale, horizon=timedelta(days=1), features=[field("prise")],
                  model=linear_model.LogisticRegression)
"""


def test_mistakes_are_named_with_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(BROKEN)
    cases: list[tuple[tuple[str, ...], dict[str, str], tuple[str, ...], int]] = [
        (("worker", "--pipeline", "flihgts"), {}, ("unknown pipeline 'flihgts'", "did you mean 'flights'?"), 1),
        (("status", "--pipeline", "shop:clicks"), {}, ("'prise'", "did you mean 'price'?"), 1),
        (("worker",), {"HEADWATER_BROKR": "x"}, ("HEADWATER_BROKR", "did you mean HEADWATER_BROKER?"), 1),
        (("doctor", "--broker", "kafka:port"), {}, ("got 'kafka:port'; expected host:port",), 1),
        (("worker", "--web-port", "99999"), {}, ("--web-port", "65535"), 2),
        (("produce", "--speed", "fast"), {}, ("got 'fast'; expected a number above 0",), 2),
        (("status",), {"HEADWATER_CHUNK": "many"}, ("HEADWATER_CHUNK: got 'many'", "docs/settings.md"), 1),
    ]
    running = [Command(*arguments, settings=settings, cwd=tmp_path) for arguments, settings, _, _ in cases]
    for command, (_, _, words, code) in zip(running, cases, strict=True):
        command.answer().refused(*words, code=code)


def test_help_of_worker_says_how_to_run_one() -> None:
    said = headwater("worker", "--help").succeeded().out
    for word in ("HEADWATER_BROKER", "HEADWATER_PIPELINE", "headwater topics create", "/health/ready", "SIGTERM"):
        assert word in said


def test_backtest_needs_no_kafka() -> None:
    values = headwater("backtest", "phishing", "--json").succeeded().json
    assert (values["pipeline"], values["events"], values["labels"]) == ("phishing", 1250, 1250)
    shown = headwater("backtest", "phishing", "--freeze-after", "2016-01-01").succeeded()
    assert all(name in shown.out for name in ("roc_auc", "log_loss", "keeps learning", "frozen"))
    assert shown.err == ""


# -- what starts a Kafka of its own; after the fixture, so that without one these are skipped too


@pytest.mark.usefixtures("kafka")
def test_demo_shows_a_learning_model_and_leaves_nothing(tmp_path: Path) -> None:
    settings = {"TMPDIR": str(tmp_path), "HEADWATER_PIPELINE": PIPELINE}
    demo = Command("demo", "--seconds", "15", "--speed", "5000", settings=settings)  # sends them all in 12
    answer = demo.answer(150).succeeded()
    assert answer.err == ""
    assert "Headwater run" in answer.out
    (row,) = [line for line in answer.out.splitlines() if "ROC AUC" in line]
    # 0.906 where each outcome is learned at once; here the first ones come when two hours of flights are predicted.
    assert float(row.split("│")[2]) > 0.7, answer.out
    assert processes(str(tmp_path), f"--end-with {demo.process.pid}") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("kafka")
def test_demo_that_is_killed_takes_its_processes_along(tmp_path: Path) -> None:
    settings = {"TMPDIR": str(tmp_path), "HEADWATER_PIPELINE": PIPELINE}
    with Command("demo", "--speed", "60", settings=settings) as demo:
        loop = f"--end-with {demo.process.pid}"
        assert until(lambda: len(processes(loop)) == 2), processes(loop)
        assert len(processes(str(tmp_path))) == 2  # Kafka and its keeper
        demo.kill()
        assert until(lambda: processes(loop, str(tmp_path)) == [], 20), processes(loop, str(tmp_path))


@pytest.mark.usefixtures("kafka")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_kafka_up_says_where_and_ends_when_told_to(tmp_path: Path, how: signal.Signals) -> None:
    with interrupts_arrive(), Command("kafka", "up", settings={"HEADWATER_DATA_DIR": str(tmp_path)}) as up:
        assert "Ctrl-C ends it" in first_line(up)
        name, _, address = first_line(up).partition("=")
        assert name == "export HEADWATER_BROKER"
        host, port = address.split(":")
        assert answers(host, int(port), timeout=10)
        up.process.send_signal(how)
        ended = up.answer().succeeded()
        assert (ended.out, ended.err) == ("ended; nothing is left running\n", "")
        assert processes(str(tmp_path)) == []
        assert not answers(host, int(port))
