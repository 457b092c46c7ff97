"""A run whose workers are clients of a secured listener, while the test itself looks on through the plain one."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner, Result

from app.cli import main
from app.settings import Settings
from streaming import permissions, topics
from streaming.config import EngineConfig
from streaming.permissions import Acl
from streaming.topics import TopicSpec
from tests.chaos.run import PARTITIONS, Run
from tests.integration.cli_run import FLIGHTS, UNLABELLED, history
from tests.security.broker import PASSWORD, USER, SecuredKafka
from tests.security.guarded_run import guarded

LABELS = FLIGHTS - len(UNLABELLED)
PRINCIPALS = {"TLS": "User:ANONYMOUS", "MUTUAL": "User:CN=client"}


def flights() -> list[Any]:
    """1,000 departures and their arrivals, in time order."""
    return list(history())


class Guarded(Run):
    """Topics and workers of one pipeline behind one listener."""

    def __init__(self, secured: SecuredKafka, logs: Path, listener: str, mechanism: str = "PLAIN") -> None:
        super().__init__(secured.kafka.bootstrap, logs, guarded)
        self.secured = secured
        self.principal = PRINCIPALS.get(listener, f"User:{USER}")
        self.settings = {
            **secured.settings(listener, mechanism),
            "HEADWATER_PIPELINE": f"tests.security.guarded_run:{self.name}",
            "HEADWATER_CREATE_TOPICS": "false",
            "HEADWATER_SNAPSHOT_EXAMPLES": "200",
            "HEADWATER_SESSION_TIMEOUT": "6",
            "HEADWATER_WEB_PORT": "0",
            "COLUMNS": "200",
        }

    @property
    def specs(self) -> Sequence[TopicSpec]:
        """The topics that the pipeline needs."""
        return topics.topics_of(self.pipeline, self.config.app_id, PARTITIONS)

    @property
    def acls(self) -> Sequence[Acl]:
        """The rights that its worker needs."""
        return permissions.acls_of(self.specs, msgspec.structs.replace(self.config, role="pair"))

    def client(self) -> EngineConfig:
        """The configuration of a client that is what the workers are."""
        names = {name.removeprefix("HEADWATER_").lower(): value for name, value in self.settings.items()}
        known = {name: value for name, value in names.items() if name in Settings.model_fields}
        return Settings(**known).engine_config(self.name)  # type: ignore[arg-type]  # text, as from an environment

    async def create(self) -> None:
        """Make topics, as an operator."""
        async with topics.admin_client(self.config) as admin:
            await topics.ensure(admin, self.specs, 1)

    async def write(self, topic: str, value: bytes) -> None:
        """Write one record, as somebody else."""
        async with AIOKafkaProducer(bootstrap_servers=self.config.bootstrap) as producer:
            await producer.send_and_wait(topic, value, b"somebody")

    async def works(self, items: list[Any], predictions: int, examples: int) -> None:
        """Write the items and wait until the workers have predicted and learned so much."""
        await self.produce(items)
        await self.until(predictions, examples)
        made = await self.read(self.pipeline.predictions_topic)
        log = await self.read(self.pipeline.training_log_topic)
        assert (len(made), len(log)) == (predictions, examples), self.last_words()

    def headwater(self, *arguments: str) -> Result:
        """What a command says, run as the worker's user."""
        return CliRunner().invoke(main, arguments, env=self.settings)

    async def finished(self, number: int, patience: float = 30.0) -> tuple[int, str]:
        """A worker's exit code and all that it said."""
        code = await self.ended(self.workers[number], patience)
        return code, self.log(number).read_text(errors="replace")


class Done(NamedTuple):
    """What came of a run from its first event to its worker's end."""

    run: Guarded
    snapshots: int
    code: int
    said: str


async def worked(secured: SecuredKafka, logs: Path, kinds: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Done]:
    """A worker behind each kind of listener, all at once: allowed what a worker must be, fed, and told to stop."""
    runs = {}
    for number, kind in enumerate(kinds):
        folder = logs / str(number)
        folder.mkdir()
        run = runs[kind] = Guarded(secured, folder, *kind)
        await run.create()
        if run.principal != "User:ANONYMOUS":  # who is the tests' super user
            await secured.allow(run.principal, *run.acls)
        run.start()

    async def feed(run: Guarded) -> Done:
        items = flights()
        await run.works(items, len(items) - LABELS, LABELS)
        snapshots = len(await run.there(run.pipeline.snapshots_topic))  # it is due by now, and written beside all else
        run.workers[0].terminate()
        return Done(run, snapshots, *await run.finished(0))

    try:
        done = await asyncio.gather(*map(feed, runs.values()))
    finally:
        for run in runs.values():
            run.end()
    return dict(zip(runs, done, strict=True))


def assert_clean(done: Done) -> None:
    """It predicted and learned everything, which `works` has seen, saved its model and ended in good order."""
    assert done.snapshots > 0
    assert done.code == 0, done.said
    assert PASSWORD not in done.said
