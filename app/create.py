"""Composition: one pipeline's agents and tables around one engine. Nothing is discovered; everything is listed here."""

from agents import label, learn, score, survey, watch
from agents.loop import WORKER, Loop
from agents.report import Reporter
from agents.snapshots import Finish, SnapshotPolicy, Snapshots
from app import tracing
from app.live import Board
from app.metrics import PrometheusMetrics
from app.news import News
from app.pair import Hearing, Other, Telling
from app.settings import Settings
from app.web import WebServer
from pipelines.definition import Pipeline
from streaming.app import StreamApp
from streaming.checkpoint import Step, no_step
from streaming.engine import Group
from streaming.snapshots import SnapshotStore
from tables import monitors, pending, profiles

SERVING = (score, label)
WATCHING = (watch, survey)
LOG_SAVED_EVERY = 4  # the monitors are written whole each time, and who recovers them reads what came since again


def create_app(
    settings: Settings, pipeline: Pipeline, partitions: int, *, step: Step = no_step, other: Other | None = None
) -> StreamApp:
    """The application of a process.

    Args:
        settings: all settings; the role is this process's.
        pipeline: what to run.
        partitions: how many partitions the events topic has.
        step: called around each step of a checkpoint, for tests.
        other: the other process of a pair. The one that serves then shows the metrics of both.
    """
    assert settings.role != "pair", "a pair is two processes, each with a role of its own"
    metrics = PrometheusMetrics()
    config = settings.engine_config(pipeline.name)
    app = StreamApp(config, log_topic=pipeline.training_log_topic, metrics=metrics, step=step, web_enabled=False)
    if config.serves:
        tables = (profiles.create(app, pipeline, partitions), pending.create(app, partitions))
        app.engine.groups.append(Group("events", (pipeline.events.topic, pipeline.labels.topic), tables))
    if config.watches:
        log_tables = (monitors.create(app, pipeline),)
        topics = (pipeline.training_log_topic, pipeline.summaries_topic)
        app.engine.groups.append(Group("log", topics, log_tables, saved_every=LOG_SAVED_EVERY))
    for group in app.engine.groups:
        for table in group.tables:
            app.tables.add(table)
    loop = Loop(app, pipeline)
    loop.tell_model()  # or the offset of its last control record would be shown as 0 until its first lesson, and change
    app.engine.on_open = loop.opened
    app.engine.on_ends = loop.look_after
    loop.reporter = Reporter(loop)
    loop.snapshots = Snapshots(
        loop,
        SnapshotStore(config, pipeline.snapshots_topic, settings.snapshot_slots),
        SnapshotPolicy(
            examples=settings.snapshot_examples,
            seconds=settings.snapshot_interval,
            slots=settings.snapshot_slots,
            keys=tuple(settings.snapshot_keys()),
        ),
    )
    app.engine.restore = loop.snapshots.restore
    app.companions.append(Finish(loop.snapshots))
    if settings.trace_share:
        loop.tracer = tracing.tracer(pipeline.name, settings.trace_share, WORKER)
        app.companions.append(tracing.Flush(loop.tracer))
    for agent in (learn, *(SERVING if config.serves else ()), *(WATCHING if config.watches else ())):
        agent.register(loop)
    metrics.follow("ready", lambda: float(app.engine.ready), pipeline=pipeline.name)
    if other is not None and not config.serves:
        app.companions.append(Telling(other, metrics))
        return app
    board = Board(pipeline.name, pipeline.description)
    loop.on_predictions, loop.on_example = board.add_predictions, board.add_outcome
    web = WebServer(
        metrics,
        lambda: app.engine.ready,
        board,
        host=settings.web_host,
        port=settings.web_port,
        token=settings.web_token,
    )
    if other is not None:  # before those that may fail, so that it is started, and then ended before the last words
        app.companions.append(Hearing(other, metrics, app.fail))
    app.companions += [web, News(config, pipeline, board)]
    return app
