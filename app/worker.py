"""The worker's entry: check everything that can be checked before the first record, then run until told to stop."""

import asyncio

import click
from aiokafka.errors import KafkaError

from app import event_loop, loops, pair
from app.create import create_app
from app.settings import Settings
from app.web import require_token
from pipelines.definition import Pipeline
from pipelines.loading import load_pipeline
from streaming import permissions, roles, topics
from streaming.app import run as run_app
from streaming.checkpoint import Step, no_step
from streaming.config import EngineConfig
from streaming.errors import StartupError

PATIENCE = 5.0  # seconds for what is asked of the broker after a failure


def run(settings: Settings, *, step: Step = no_step) -> None:
    """Run one worker: in this process, and where it is a pair in another one beside it.

    Args:
        settings: all settings.
        step: called around each step of a checkpoint, for tests.

    Raises StartupError, DefinitionError, SettingsError or CompiledError before it starts.
    """
    require_token(settings.web_host, settings.web_token)
    if settings.role != "pair":
        _first(settings, step, None)
        return
    with pair.begun(watch, settings, step) as other:  # at first: a process is best forked that has nothing running yet
        _first(settings, step, other)


def _first(settings: Settings, step: Step, other: pair.Other | None) -> None:
    pipeline = load_pipeline(settings.pipeline)
    click.echo(event_loop.choose(settings.event_loop), err=True)
    click.echo(loops.said(loops.choose(settings)), err=True)
    partitions = asyncio.run(prepared(pipeline, settings.engine_config(pipeline.name)))
    if other is not None:
        other.go(partitions)
        settings = pair.role_of(settings, "serve")
    _run(settings, pipeline, partitions, step, other)


def watch(settings: Settings, step: Step, other: pair.Other) -> None:
    """What the second process of a pair does, once the first has seen that all is well."""
    partitions = other.told()
    if partitions is None:  # it was not, which the first has said
        return
    pipeline = load_pipeline(settings.pipeline)
    event_loop.choose(settings.event_loop)
    loops.choose(settings)
    _run(pair.role_of(settings, "watch"), pipeline, partitions, step, other)


def _run(settings: Settings, pipeline: Pipeline, partitions: int, step: Step, other: pair.Other | None) -> None:
    config = settings.engine_config(pipeline.name)
    app = create_app(settings, pipeline, partitions, step=step, other=other)
    run_app(app, loglevel=settings.log_level, more=lambda: asyncio.run(lost(pipeline, config)))


async def lost(pipeline: Pipeline, config: EngineConfig) -> str:
    """Which rights a worker has no more, for its last words: what Kafka says when one is used does often not tell."""
    specs = topics.topics_of(pipeline, config.app_id, config.partitions)
    try:
        async with asyncio.timeout(PATIENCE), topics.admin_client(config) as admin:
            permissions.must_be_granted(await permissions.survey(admin, specs, config), config)
    except StartupError as error:
        return f"{error}\n"
    except (TimeoutError, KafkaError):  # a broker that is gone says nothing
        pass
    return ""


async def prepared(pipeline: Pipeline, config: EngineConfig) -> int:
    """Create what topics are missing, check them and the rights, and return the events topic's partition count.

    Raises StartupError with all that is missing. Where topics are not to be created, nothing is tried.
    """
    specs = topics.topics_of(pipeline, config.app_id, config.partitions)
    async with topics.admin_client(config) as admin:
        permissions.must_be_granted(await permissions.survey(admin, specs, config), config)
        roles.must_fit(config, await roles.division(admin, config, pipeline.training_log_topic))
        if not config.create_topics:
            return await topics.check(admin, specs)
        created = await topics.ensure(admin, specs, config.replication_factor)
        for spec in created:
            click.echo(f"created topic {spec.name} ({spec.partitions} partitions): {spec.about}", err=True)
        if created:  # of a topic that is not there a broker does not say who may do what with it
            permissions.must_be_granted(await permissions.survey(admin, specs, config), config)
        return await topics.check(admin, specs)
