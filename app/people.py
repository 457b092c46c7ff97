"""What the command line shares: errors for people instead of tracebacks, loading the pipeline, ending in good order."""

import asyncio
import json
import logging
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import click
from aiokafka.errors import KafkaConnectionError, KafkaError
from rich.console import Console

from app.settings import Settings, SettingsError, load_settings
from features import FeatureDefinitionError
from features.compiled import CompiledError
from pipelines.definition import DefinitionError, Pipeline
from pipelines.loading import load_pipeline
from streaming.errors import EngineError

T = TypeVar("T")

pipeline_option = click.option("--pipeline", help="Built-in name or package.module:name [HEADWATER_PIPELINE].")
broker_option = click.option("--broker", help="Kafka bootstrap servers [HEADWATER_BROKER].")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

console = Console()
stderr = Console(stderr=True)


@contextmanager
def for_people() -> Iterator[None]:
    """Turn the errors that somebody can do something about into a message; leave bugs as they are."""
    try:
        yield
    except (SettingsError, DefinitionError, FeatureDefinitionError, CompiledError, EngineError) as error:
        raise click.ClickException(str(error)) from error
    except KafkaConnectionError as error:
        message = f"lost or never had the Kafka broker: {error}. Set HEADWATER_BROKER, or start one: headwater kafka up"
        raise click.ClickException(message) from error
    except KafkaError as error:
        message = f"Kafka refused: {error!r}. `headwater doctor` says what is wrong"
        raise click.ClickException(message) from error


def quiet() -> None:
    """Keep what libraries log off the screen; the errors that matter are raised. A worker logs as Faust sets it up."""
    logging.getLogger().addHandler(logging.NullHandler())


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, cleaning up; what is ignored (nohup) stays ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def settings_for(**overrides: Any) -> Settings:
    """Settings from the environment and these options; an option that was not given is None."""
    return load_settings(**{name: value for name, value in overrides.items() if value is not None})


def pipeline_of(settings: Settings) -> Pipeline:
    """The pipeline that the settings name."""
    return load_pipeline(settings.pipeline)


def needs_source(pipeline: Pipeline) -> None:
    """Raise ClickException for a pipeline that has no data set to read."""
    if pipeline.source is None:
        message = f"pipeline {pipeline.name} has no data set; give it one with source= in its definition"
        raise click.ClickException(message)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end. Raises KeyboardInterrupt at Ctrl-C."""
    return asyncio.run(coroutine)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, default=str))
