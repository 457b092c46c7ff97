"""The worker's entry: check everything that can be checked before the first record, then run until told to stop."""

import asyncio

import click

from app import loops
from app.create import create_app
from app.settings import Settings
from pipelines.definition import Pipeline
from pipelines.loading import load_pipeline
from streaming import topics
from streaming.app import run as run_app
from streaming.config import EngineConfig


def run(settings: Settings) -> None:
    """Run one worker in this process.

    Raises StartupError, DefinitionError, SettingsError or CompiledError before it starts.
    """
    pipeline = load_pipeline(settings.pipeline)
    config = settings.engine_config(pipeline.name)
    click.echo(loops.said(loops.choose(settings)), err=True)
    partitions = asyncio.run(prepared(pipeline, config))
    run_app(create_app(settings, pipeline, partitions), loglevel=settings.log_level)


async def prepared(pipeline: Pipeline, config: EngineConfig) -> int:
    """Create what topics are missing, check them all, and return the events topic's partition count."""
    specs = topics.topics_of(pipeline, config.app_id, config.partitions)
    async with topics.admin_client(config) as admin:
        for spec in await topics.ensure(admin, specs, config.replication_factor):
            click.echo(f"created topic {spec.name} ({spec.partitions} partitions): {spec.about}", err=True)
        return await topics.check(admin, specs)
