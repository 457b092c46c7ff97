"""What is done to brokers and to the network: killed, cut off, slow, silent, full, compacted. Workers that end are
started again, as Docker or Kubernetes would."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from streaming.brokers import LocalKafka
from streaming.errors import EngineError
from streaming.recovery import committed_offsets, end_offsets
from tests.chaos.brokers import Cluster, ProxiedKafka, SmallDisk
from tests.chaos.checker import Verdict, check, truth
from tests.chaos.run import PARTITIONS, Load, Run
from tests.chaos.scenario import scenario

RATE = 150.0  # items a second
REQUEST_TIMEOUT = 15.0  # seconds
SETTINGS = {"HEADWATER_REQUEST_TIMEOUT": str(REQUEST_TIMEOUT), "HEADWATER_TRANSACTION_TIMEOUT": "15"}
SHORT = (0.5, 4.0)  # seconds that every patience outlasts
LONG = (17.0, 20.0)  # longer than the session, a transaction and a request may take
FLOWS_WITHIN = 180.0
"""Seconds after an outage by which all that was written during it has been done, on a machine that is busy."""
COMPACTED_WITHIN = 60.0
"""Seconds of load by which the broker has compacted what goes on changing."""
PAUSE = 1.0  # seconds before a worker is started again


class Fleet:
    """Workers that are started again when they end.

    Attributes:
        codes: the exit codes of those that ended by themselves.
        cases: what was wrong, for the verdict.
    """

    def __init__(self, run: Run, addresses: Sequence[str | None] = (None, None)) -> None:
        run.settings.update(SETTINGS)
        self.codes: list[int] = []
        self.cases: list[str] = []
        self._run = run
        self._addresses = list(addresses)
        self._workers = [run.start(bootstrap=address) for address in addresses]
        self._tending = asyncio.create_task(self._tend())

    async def _tend(self) -> None:
        while True:
            for number, worker in enumerate(self._workers):
                if worker.poll() is not None:
                    code = await self._run.ended(worker)
                    self.codes.append(code)
                    if code <= 0:
                        self.cases.append(f"a worker ended by itself with {code}")
                    await asyncio.sleep(PAUSE)
                    self._workers[number] = self._run.start(bootstrap=self._addresses[number])
            await asyncio.sleep(0.2)

    async def flows(self) -> None:
        """Wait until all that the source topics hold by now has been done. That it takes too long is a case."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(FLOWS_WITHIN):
                await caught_up(self._run)
            self._run.history.note("flows", after=f"{time.monotonic() - began:.1f}s")
        except TimeoutError:
            self.cases.append(f"nothing flowed {FLOWS_WITHIN:.0f} s after the outage was over")
            self._run.history.note("does not flow")

    async def verdict(self, load: Load) -> Verdict:
        """Stop the load, let everything be done, and say what is true."""
        expected = truth(self._run.pipeline, await load.stop())
        verdict = check(self._run.pipeline, expected, await self._run.settled(expected))
        self._tending.cancel()
        verdict.found("misbehaved", self.cases)
        return verdict


async def caught_up(run: Run) -> None:
    """Wait until the group has done all that its source topics hold by now, whatever the broker says meanwhile."""
    topics = run.pipeline.events.topic, run.pipeline.labels.topic
    tps = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
    ends: dict[TopicPartition, int] = {}
    while True:
        try:
            ends = ends or await end_offsets(run.config, tps)
            done = await committed_offsets(run.config, tps)
        except (KafkaError, EngineError, OSError):
            await asyncio.sleep(0.5)
            continue
        if all(done[tp] >= ends[tp] for tp in tps):
            return
        await asyncio.sleep(0.5)


async def settle(run: Run, items: Iterator[Any], addresses: Sequence[str | None] = (None, None)) -> tuple[Load, Fleet]:
    """Load and workers, once what was written at first has been done."""
    load, fleet = run.load(items, RATE), Fleet(run, addresses)
    await asyncio.sleep(1)
    await fleet.flows()
    return load, fleet


def own_kafka(folder: Path) -> LocalKafka:
    """A broker that may be harmed."""
    return LocalKafka(folder / "kafka")


@scenario("broker", short=0, share=0.05, broker=own_kafka)
async def broker(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """The broker is killed and started again on its data: at once, or after longer than a request may take."""
    load, fleet = await settle(run, items)
    for number in run.rounds(size):
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        await outage(run, chance.uniform(*(LONG if number % 2 else SHORT)), run.broker.kill, run.broker.start)
        await fleet.flows()
    return await fleet.verdict(load)


async def outage(run: Run, seconds: float, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
    """Begin, wait, end; both noted by their names."""
    run.history.note(getattr(begin, "__name__", "begin"), for_=f"{seconds:.1f}s")
    await asyncio.to_thread(begin)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(end)
    run.history.note(getattr(end, "__name__", "end"))


@scenario("network", short=0, share=0.1, broker=lambda folder: ProxiedKafka(folder / "kafka", 2))
async def network(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """The way between one worker and the broker is cut, dropped, slowed or made silent, in one direction or in both."""
    load, fleet = await settle(run, items, [run.broker.through(0), run.broker.through(1)])
    acts = ["silence", "cut", "silence up", "drop", "silence down", "delay"]
    for number in run.rounds(size):
        if number % len(acts) == 0:
            chance.shuffle(acts)
        act, which = acts[number % len(acts)], chance.randrange(2)
        proxy = run.broker.proxies[which]
        seconds = chance.uniform(*(LONG if chance.random() < 0.5 else SHORT))
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        run.history.note(act, worker_at=which, for_=f"{seconds:.1f}s")
        harm(proxy, act, chance)
        await asyncio.sleep(seconds)
        proxy.heal()
        run.history.note("heal", worker_at=which)
        await fleet.flows()
    return await fleet.verdict(load)


@scenario("outages", short=3, share=0.0, broker=lambda folder: ProxiedKafka(folder / "kafka", 2))
async def outages(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """The telling ones in one run: a silence longer than the session, the broker killed, a worker cut off."""
    load, fleet = await settle(run, items, [run.broker.through(0), run.broker.through(1)])
    for number in run.rounds(size):
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        first, second = run.broker.proxies
        acts = [
            (first.silence, first.heal, 4.5),
            (run.broker.kill, run.broker.start, 1.0),
            (second.cut, second.heal, 2.0),
        ]
        begin, end, seconds = acts[number % len(acts)]
        await outage(run, seconds, begin, end)
        await fleet.flows()
    return await fleet.verdict(load)


def harm(proxy: Any, act: str, chance: random.Random) -> None:
    """Do to a network what the act says."""
    name, _, direction = act.partition(" ")
    if name == "silence":
        proxy.silence(*([direction] if direction else []))
    elif name == "delay":
        proxy.delay(chance.uniform(0.05, 1.0))
    else:
        getattr(proxy, name)()


@scenario("cluster", short=0, share=0.04, broker=lambda folder: Cluster(folder / "cluster"))
async def cluster(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """Of three brokers with a copy of everything, two of which must have it: one is killed, or two, and come back."""
    load, fleet = await settle(run, items)
    for number in run.rounds(size):
        gone = await victims(run, chance, 1 + number % 2)
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        run.history.note("kill", nodes=gone)
        await asyncio.to_thread(run.broker.kill, *gone)
        if len(gone) == 1:
            await fleet.flows()  # without it
        else:
            await asyncio.sleep(chance.uniform(*LONG))
        await asyncio.to_thread(run.broker.start, gone)
        run.history.note("start", nodes=gone)
        await fleet.flows()
        await in_sync(run)
    return await fleet.verdict(load)


async def victims(run: Run, chance: random.Random, how_many: int) -> list[int]:
    """Nodes to kill: the controllers' leader, the group's coordinator, that of a transaction, or any, in turn."""
    admin = AIOKafkaAdminClient(bootstrap_servers=run.config.bootstrap)
    await admin.start()
    try:
        roles = {
            "controller": (await admin.describe_cluster())["controller_id"],
            "group coordinator": await admin.find_coordinator(run.config.app_id),
            "transaction coordinator": await admin.find_coordinator(f"{run.config.app_id}-events-0", 1),
        }
    finally:
        await admin.close()
    role = chance.choice(sorted(roles))
    first = roles[role] - 1
    others = [n for n in range(len(run.broker.nodes)) if n != first]
    run.history.note("victim", node=first, role=role.replace(" ", "-"))
    return [first, *chance.sample(others, how_many - 1)]


async def in_sync(run: Run) -> None:
    """Wait until every copy of every partition is in sync again, so that the next kill is of one copy only."""
    admin = AIOKafkaAdminClient(bootstrap_servers=run.config.bootstrap)
    await admin.start()
    try:
        for _ in range(240):
            topics = await admin.describe_topics()
            parts = [part for topic in topics for part in topic["partitions"]]
            if all(len(part["isr"]) == run.broker.copies for part in parts):
                return
            await asyncio.sleep(0.5)
    finally:
        await admin.close()
    run.history.note("not in sync")


@scenario("disk", short=0, share=0.01, broker=lambda folder: SmallDisk(folder / "kafka"))
async def disk(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """The broker's disk is full, so that it fails; there is room again, and it is started on its data."""
    load, fleet = await settle(run, items)
    for _ in run.rounds(size):
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        run.broker.fill(leave=chance.randrange(1 << 14, 1 << 18))
        run.history.note("fill")
        for _ in range(600):
            if not run.broker.kafka.running:
                break
            await asyncio.sleep(0.1)
        else:
            fleet.cases.append("a broker without room for a minute went on")
        run.history.note("failed")
        await asyncio.sleep(chance.uniform(*SHORT))
        await asyncio.to_thread(run.broker.kill)
        run.broker.make_room()
        await asyncio.to_thread(run.broker.start)
        run.history.note("start")
        await fleet.flows()
    return await fleet.verdict(load)


CLEANED_OFTEN = {"log.cleaner.backoff.ms": "200", "log.segment.delete.delay.ms": "100"}
COMPACTED_OFTEN = {
    "cleanup.policy": "compact",
    "segment.ms": "1000",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "1000",
    "max.compaction.lag.ms": "1000",
}


@scenario("compaction", short=0, share=0.03, broker=lambda folder: LocalKafka(folder / "kafka", settings=CLEANED_OFTEN))
async def compaction(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """Changelogs are compacted all the time, tombstones too, while workers are killed and recover from them."""
    changelogs = [f"{run.config.app_id}-{name}-changelog" for name in ("profiles", "pending", "monitors")]
    await configure(run, changelogs, COMPACTED_OFTEN)
    load, fleet = await settle(run, items)
    for _ in run.rounds(size):
        await asyncio.sleep(chance.uniform(6.0, 10.0))
        fleet.cases += await compacted(run, changelogs[:2])  # or there would be nothing else to recover from
        for worker in run.alive():
            run.history.note("SIGKILL", worker=run.workers.index(worker))
            worker.kill()
        await fleet.flows()
    fleet.codes.clear()
    fleet.cases = [case for case in fleet.cases if not case.endswith(" -9")]
    fleet.cases += await compacted(run, changelogs[:2])
    return await fleet.verdict(load)


async def compacted(run: Run, topics: Sequence[str]) -> list[str]:
    """Wait until half of what was written to each topic is gone. That it takes too long is a case."""
    end, cases = time.monotonic() + COMPACTED_WITHIN, []
    for topic in topics:
        kept, written = await counted(run, topic)
        while kept > written / 2 and time.monotonic() < end:
            await asyncio.sleep(0.5)
            kept, written = await counted(run, topic)
        run.history.note("compacted", topic=topic, kept=kept, of=written)
        if kept > written / 2:
            cases.append(f"{topic} was hardly compacted: {kept} of {written} records are there")
    return cases


async def configure(run: Run, topics: Sequence[str], settings: dict[str, str]) -> None:
    """Set the configuration of topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=run.config.bootstrap)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings) for topic in topics])
    finally:
        await admin.close()


async def counted(run: Run, topic: str) -> tuple[int, int]:
    """How many records of a topic there are, and how many offsets have been given out."""
    tps = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    ends = await end_offsets(run.config, tps)
    return len(await run.read(topic)), sum(ends.values())
