"""Everything on one machine: local Kafka, topics, a worker, a producer, and a live view: `headwater demo`.

Whatever ends it (Ctrl-C, SIGTERM, --seconds), everything it started ends with it.
"""

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import msgspec
from pipelines.definition import Pipeline
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app import children
from app.people import console
from app.people import run as run_coroutine
from app.settings import Settings
from app.status import scrape
from learning.records import DriftEvent, Example, Prediction, decode_log
from streaming import clients, topics
from streaming.config import EngineConfig

ROWS = 12
MEMORY = 200  # predictions whose outcome may still come


class Board:
    """What the live view shows; fed with records and samples, and rendered without I/O."""

    def __init__(self, pipeline: Pipeline, url: str) -> None:
        self.pipeline = pipeline
        self.url = url
        self.predictions: OrderedDict[str, Prediction] = OrderedDict()
        self.outcomes: deque[Example] = deque(maxlen=ROWS)
        self.drifts: deque[DriftEvent] = deque(maxlen=3)
        self.samples: Mapping[str, float] = {}
        self.rate = 0.0
        self._last = (0.0, 0.0)

    def prediction(self, prediction: Prediction) -> None:
        """A prediction was made."""
        self.predictions[prediction.id] = prediction
        while len(self.predictions) > MEMORY:
            self.predictions.popitem(last=False)

    def outcome(self, example: Example) -> None:
        """An outcome arrived."""
        self.outcomes.append(example)

    def measured(self, samples: Mapping[str, float], now: float) -> None:
        """The worker's metrics were read at this monotonic time."""
        events, (before, then) = samples.get("events_total", 0.0), self._last
        if then and now > then:
            self.rate = max(events - before, 0.0) / (now - then)
        self._last, self.samples = (events, now), samples

    def quality(self, name: str) -> str:
        """One prequential number, or a dash while there is none."""
        value = self.samples.get(f'quality{{metric="{name}"}}')
        return "-" if value is None else f"{value:.4f}"

    def __rich__(self) -> Group:
        get = self.samples.get
        head = Text.assemble(
            (f"Headwater {self.pipeline.name}  ", "bold"),
            f"{self.rate:,.0f} events/s   {get('events_total', 0):,.0f} events"
            f"   {get('predictions_total', 0):,.0f} predictions   {get('training_examples_total', 0):,.0f} learned"
            f"   model version {get('model_version', 0):,.0f}",
        )
        foot = Text(f"metrics: {self.url}    Ctrl-C ends everything", style="dim")
        return Group(head, self._quality(), self._latest(), self._drift(), foot)

    def _quality(self) -> Table:
        shown = Table("predicted before learned", title="quality so far", title_justify="left")
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

    def _latest(self) -> Table:
        shown = Table("id", "key", "predicted", "outcome", "version", title="latest", title_justify="left")
        for example in list(self.outcomes)[-ROWS // 2 :]:
            row = (
                example.id,
                example.key,
                _short(example.prediction),
                str(example.outcome),
                f"{example.version:,}",
            )
            shown.add_row(*row, style="green")
        for prediction in list(self.predictions.values())[-ROWS // 2 :]:
            row = (
                prediction.id,
                prediction.key,
                _short(prediction.prediction),
                "…",
                f"{prediction.version:,}",
            )
            shown.add_row(*row)
        return shown

    def _drift(self) -> Text:
        if not self.drifts:
            return Text("drift: none so far", style="dim")
        lines = [
            f"drift: {d.signal} by {d.detector} at version {d.version:,}, value {d.value:.4g}" for d in self.drifts
        ]
        return Text("\n".join(lines), style="yellow")


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        best = max(value, key=lambda name: value[name])
        return f"{best} {value[best]:.3f}"
    return f"{value:.3f}"


async def feed(board: Board, pipeline: Pipeline, config: EngineConfig) -> None:
    """Keep the board up to date with what the worker writes. Never ends."""
    names = (pipeline.predictions_topic, pipeline.training_log_topic, pipeline.drift_topic)
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
    else:
        record = decode_log(value)
        if isinstance(record, Example):
            board.outcome(record)


async def measure(board: Board) -> None:
    """Keep the board's numbers up to date. Never ends."""
    while True:
        samples = await scrape(board.url)
        if samples is not None:
            board.measured(samples, time.monotonic())
        await asyncio.sleep(1.0)


Processes = Mapping[str, tuple["subprocess.Popen[bytes]", Path]]


async def watch(
    board: Board, pipeline: Pipeline, config: EngineConfig, processes: Processes, seconds: float | None
) -> None:
    """Show the board until the time is over. Raises ClickException when a process of the demo failed."""
    tasks = [asyncio.create_task(feed(board, pipeline, config)), asyncio.create_task(measure(board))]
    until = None if seconds is None else time.monotonic() + seconds
    try:
        with Live(board, console=console, refresh_per_second=4, screen=console.is_terminal):
            while until is None or time.monotonic() < until:
                await asyncio.sleep(0.25)
                for name, (process, log) in processes.items():
                    if process.poll() not in (None, 0) or (name == "worker" and process.poll() == 0):
                        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                        message = f"the {name} ended with exit code {process.returncode}; its last lines:\n{tail}"
                        raise click.ClickException(message)
                for task in tasks:
                    if task.done():
                        task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, cleaning up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    from streaming.brokers import LocalKafka  # noqa: PLC0415  # resolves jars, which no other command needs

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
    processes = {}
    for name, options in (("worker", []), ("producer", ["--speed", speed])):
        command = "worker" if name == "worker" else "produce"
        log = folder / f"{name}.log"
        process = children.start([command, *options, "--end-with", str(parent)], env, log)
        stack.callback(children.stop, process)
        processes[name] = (process, log)
    board = Board(pipeline, f"http://127.0.0.1:{port}/metrics")
    run_coroutine(watch(board, pipeline, config, processes, seconds))
    if not console.is_terminal or seconds is not None:
        console.print(board)


async def _create_topics(pipeline: Pipeline, config: EngineConfig) -> None:
    async with topics.admin_client(config) as admin:
        specs = topics.topics_of(pipeline, config.app_id, config.partitions)
        await topics.ensure(admin, specs, config.replication_factor)
