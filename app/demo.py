"""Everything on one machine: local Kafka, topics, a worker, a producer, and a live view: `headwater demo`.

Whatever ends it (Ctrl-C, SIGTERM, --seconds), everything it started ends with it.
"""

import asyncio
import math
import shutil
import subprocess
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec
from pydantic import SecretStr
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app import children
from app.people import console, interruptible
from app.people import run as run_coroutine
from app.settings import Settings
from app.status import scrape
from app.top import said
from learning.quality import best_class
from learning.records import DriftEvent, Example, Prediction, Value, decode_log
from learning.reports import Incident, Report
from learning.verdict import judge
from pipelines.definition import Pipeline
from streaming import clients, topics
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig

ROWS = 12
FRAME = 22  # lines of the board that are not rows of its latest predictions
PATIENCE = 60.0  # seconds that the first event is waited for
WORKER_LOG, PRODUCER_LOG = "worker.log", "producer.log"
MEMORY = 200  # predictions whose outcome may still come, and outcomes whose prediction may


class Board:
    """What the live view shows; fed with records and samples, and rendered without I/O."""

    def __init__(self, pipeline: Pipeline, url: str) -> None:
        self.pipeline = pipeline
        self.url = url
        self.predictions: OrderedDict[str, Prediction] = OrderedDict()
        self.outcomes: OrderedDict[str, Example] = OrderedDict()
        self.drifts: deque[DriftEvent] = deque(maxlen=3)
        self.report: Report | None = None
        self.incidents: dict[str, Incident] = {}
        self.samples: Mapping[str, float] = {}
        self.rate = 0.0
        self._last = (0.0, 0.0)

    def prediction(self, prediction: Prediction) -> None:
        """A prediction was made."""
        if prediction.id not in self.outcomes:  # it may come through its topic after its outcome through another
            _remember(self.predictions, prediction)

    def outcome(self, example: Example) -> None:
        """An outcome arrived."""
        self.predictions.pop(example.id, None)
        _remember(self.outcomes, example)

    def measured(self, samples: Mapping[str, float], now: float) -> None:
        """The worker's metrics were read at this monotonic time."""
        events, (before, then) = samples.get("events_total", 0.0), self._last
        if then and now > then:
            self.rate = max(events - before, 0.0) / (now - then)
        self._last, self.samples = (events, now), samples

    @property
    def begun(self) -> bool:
        """Whether the worker has seen an event."""
        return self.samples.get("events_total", 0.0) > 0

    def quality(self, name: str) -> str:
        """One prequential number, or a dash while there is none."""
        value = self.samples.get(f'quality{{metric="{name}"}}')
        return "-" if value is None else f"{value:.4f}"

    def __rich_console__(self, console: Console, _options: ConsoleOptions) -> RenderResult:
        """Everything, with as many rows as there is room for."""
        get = self.samples.get
        yield Text.assemble(
            (f"Headwater {self.pipeline.name}", "bold"),
            f"   {self.rate:,.0f} events/s   model version {get('model_version', 0):,.0f}",
        )
        yield Text(
            f"{get('events_total', 0):,.0f} events   {get('predictions_total', 0):,.0f} predictions"
            f"   {get('training_examples_total', 0):,.0f} learned"
        )
        yield next(said(judge(self.report, list(self.incidents.values()))))
        yield self._quality()
        yield self._latest(max(2, min(ROWS, console.height - FRAME)))
        yield self._drift()
        yield Text(f"page: {self.url}/    Ctrl-C ends everything", style="dim")

    def _quality(self) -> Table:
        shown = Table("metric", title="quality so far; each was predicted before it was learned", title_justify="left")
        for column in ("keeps learning", "last outcomes", "frozen copy", "while frozen", "base rate"):
            shown.add_column(column, justify="right")
        q = self.quality
        if self.pipeline.task in ("binary", "anomaly"):
            since = "online_since_frozen_roc_auc"
            shown.add_row("ROC AUC", q("roc_auc"), q("rolling_roc_auc"), q("frozen_roc_auc"), q(since), "0.5000")
            since = "online_since_frozen_log_loss"
            base = q("base_rate_log_loss")
            shown.add_row("log loss", q("log_loss"), q("rolling_log_loss"), q("frozen_log_loss"), q(since), base)
        else:
            for name in ("accuracy", "log_loss") if self.pipeline.task == "multiclass" else ("mae", "rmse"):
                shown.add_row(name, q(name), q(f"rolling_{name}"), q(f"frozen_{name}"), "-", "-")
        return shown

    def _latest(self, rows: int) -> Table:
        shown = Table("id", "key", "predicted", "outcome", "version", title="latest", title_justify="left")
        for example in list(self.outcomes.values())[-(rows // 2) :]:
            shown.add_row(*_row(example, str(example.outcome)), style="green")
        for prediction in list(self.predictions.values())[-(rows // 2) :]:
            shown.add_row(*_row(prediction, "…"))
        return shown

    def _drift(self) -> Text:
        if not self.drifts:
            return Text("drift: none so far", style="dim")
        lines = [
            f"drift: {d.signal} by {d.detector} at version {d.version:,}, value {d.value:.4g}" for d in self.drifts
        ]
        return Text("\n".join(lines), style="yellow")


def _remember(there: OrderedDict[str, Any], record: Prediction | Example) -> None:
    there[record.id] = record
    while len(there) > MEMORY:
        there.popitem(last=False)


def _row(record: Prediction | Example, outcome: str) -> tuple[Text, ...]:
    """Cells as text: ids and keys are the user's, and may look like markup."""
    cells = (record.id, record.key, _short(record.prediction), outcome, f"{record.version:,}")
    return tuple(map(Text, cells))


def _short(value: Value) -> str:
    if isinstance(value, dict):
        best = best_class(value)
        return "-" if best is None else f"{best} {value[best]:.3f}"
    return f"{value:.3f}"


async def feed(board: Board, pipeline: Pipeline, config: EngineConfig) -> None:
    """Keep the board up to date with what the worker writes. Never ends."""
    names = (
        pipeline.predictions_topic,
        pipeline.training_log_topic,
        pipeline.drift_topic,
        pipeline.reports_topic,
        pipeline.incidents_topic,
    )
    async with clients.consumer(config, *names) as consumer:
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records[-MEMORY:]:
                    _show(board, pipeline, tp.topic, record.value)


def _show(board: Board, pipeline: Pipeline, topic: str, value: bytes) -> None:
    if topic == pipeline.predictions_topic:
        board.prediction(msgspec.json.decode(value, type=Prediction))
    elif topic == pipeline.drift_topic:
        board.drifts.append(msgspec.json.decode(value, type=DriftEvent))
    elif topic == pipeline.reports_topic:
        board.report = msgspec.json.decode(value, type=Report)
    elif topic == pipeline.incidents_topic:
        incident = msgspec.json.decode(value, type=Incident)
        board.incidents[incident.id] = incident
    else:
        record = decode_log(value)
        if isinstance(record, Example):
            board.outcome(record)


async def measure(board: Board, token: SecretStr) -> None:
    """Keep the board's numbers up to date. Never ends."""
    while True:
        samples = await scrape(f"{board.url}/metrics", token)
        if samples is not None:
            board.measured(samples, time.monotonic())
        await asyncio.sleep(1.0)


async def ready(url: str, worker: "subprocess.Popen[bytes]") -> None:
    """Wait until the worker takes records, or has ended. Events that wait for it would be predicted by no model."""
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while worker.poll() is None:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except (TimeoutError, aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.1)


class Parts(msgspec.Struct):
    """What the demo runs besides itself."""

    broker: LocalKafka
    worker: "subprocess.Popen[bytes]"
    producer: "subprocess.Popen[bytes]"
    folder: Path

    def trouble(self) -> str | None:
        """What is wrong with them, for people; None while all is well."""
        if not self.broker.running:
            return self._last("kafka", self.broker.log, "ended")
        if (code := self.worker.poll()) is not None:
            return self._last("worker", self.folder / WORKER_LOG, f"ended with exit code {code}")
        if code := self.producer.poll():  # 0 is the end of its data set
            return self._last("producer", self.folder / PRODUCER_LOG, f"ended with exit code {code}")
        return None

    @staticmethod
    def _last(name: str, log: Path, what: str) -> str:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        return f"the {name} {what}; its last lines:\n{tail}"


async def watch(
    board: Board,
    pipeline: Pipeline,
    config: EngineConfig,
    parts: Parts,
    *,
    seconds: float | None,
    token: SecretStr,
) -> None:
    """Show the board, for so many seconds from the first event on, or from when one should have come.

    What starting takes shows nothing, so it does not count. Raises ClickException when a process of the demo failed.
    """
    tasks = [asyncio.create_task(feed(board, pipeline, config)), asyncio.create_task(measure(board, token))]
    until, patience = math.inf, time.monotonic() + PATIENCE
    terminal = console.is_terminal
    try:
        with Live(board, console=console, refresh_per_second=4, screen=True) if terminal else nullcontext():
            while time.monotonic() < until:
                await asyncio.sleep(0.25)
                now = time.monotonic()
                if seconds is not None and until == math.inf and (board.begun or now > patience):
                    until = now + seconds
                if trouble := parts.trouble():
                    raise click.ClickException(trouble)
                for task in tasks:
                    if task.done():
                        task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(settings: Settings, pipeline: Pipeline, *, speed: str, seconds: float | None, parent: int) -> None:
    """Start everything, show it, and end everything."""
    try:
        with interruptible(), ExitStack() as stack:
            _run(settings, pipeline, stack, speed=speed, seconds=seconds, parent=parent)
    except KeyboardInterrupt:
        console.print("ended; nothing is left running")


def _run(
    settings: Settings,
    pipeline: Pipeline,
    stack: ExitStack,
    *,
    speed: str,
    seconds: float | None,
    parent: int,
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="headwater-demo-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    with console.status("starting a local Kafka (the first time its jars are fetched, about 20 s)"):
        broker = stack.enter_context(LocalKafka(folder / "kafka"))
    local = settings.model_copy(
        update={"broker": broker.bootstrap, "security_protocol": "PLAINTEXT", "replication_factor": 1}
    )
    config = local.engine_config(pipeline.name)
    with console.status("creating topics"):
        run_coroutine(_create_topics(pipeline, config))
    port = children.free_port()
    env = {
        "HEADWATER_BROKER": broker.bootstrap,
        "HEADWATER_PIPELINE": settings.pipeline,
        "HEADWATER_SECURITY_PROTOCOL": "PLAINTEXT",
        "HEADWATER_WEB_HOST": "127.0.0.1",
        "HEADWATER_WEB_PORT": str(port),
        "HEADWATER_DATA_DIR": str(folder / "worker"),
    }

    def start(log: str, *arguments: str) -> "subprocess.Popen[bytes]":
        process = children.start([*arguments, "--end-with", str(parent)], env, folder / log)
        stack.callback(children.stop, process)
        return process

    address = f"http://127.0.0.1:{port}"
    worker = start(WORKER_LOG, "worker")
    with console.status("starting the worker"):
        run_coroutine(ready(f"{address}/health/ready", worker))
    parts = Parts(broker, worker, start(PRODUCER_LOG, "produce", "--speed", speed), folder)
    board = Board(pipeline, address)
    try:
        run_coroutine(watch(board, pipeline, config, parts, seconds=seconds, token=settings.web_token))
    finally:
        console.print(board)  # the live view leaves nothing on the screen


async def _create_topics(pipeline: Pipeline, config: EngineConfig) -> None:
    async with topics.admin_client(config) as admin:
        specs = topics.topics_of(pipeline, config.app_id, config.partitions)
        await topics.ensure(admin, specs, config.replication_factor)
