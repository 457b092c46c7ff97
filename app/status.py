"""How a pipeline is doing, from the worker's `/metrics` and from Kafka's offsets: `headwater status`."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError
from pydantic import SecretStr

from app import top
from app.control import as_dict, controls, summary
from app.feed import as_json, board_of
from app.live import Board
from app.metrics import parse
from app.settings import Settings
from learning.verdict import judge
from pipelines.definition import Pipeline
from streaming import recovery, topics
from streaming.config import EngineConfig
from streaming.errors import StartupError
from streaming.reading import read_between

COUNTED = 1_000  # offsets that are looked at, so that markers are not taken for records; of more, a few matter little


def metrics_url(settings: Settings) -> str:
    """Where the worker of these settings answers; one that listens everywhere does so on loopback too."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.web_host, settings.web_host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.web_port}/metrics"


async def scrape(url: str, token: SecretStr | None = None) -> Mapping[str, float] | None:
    """The worker's samples, or None where no worker answers. Raises StartupError where it does not know the token."""
    said = token.get_secret_value() if token is not None else ""
    headers = {"Authorization": f"Bearer {said}"} if said else {}
    try:
        timeout = aiohttp.ClientTimeout(total=2)
        # A redirect would take the token elsewhere.
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status == 401:
                message = f"the worker at {url} wants another token; set HEADWATER_WEB_TOKEN to the worker's"
                raise StartupError(message)
            return parse(await response.text()) if response.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):  # ValueError: somebody else answers, with bytes
        return None


async def lags(pipeline: Pipeline, config: EngineConfig) -> dict[str, dict[str, int]]:
    """Per source partition: committed offset, end offset and how many records lie between them."""
    names = (pipeline.events.topic, pipeline.labels.topic)
    async with topics.admin_client(config) as admin:
        counts = await topics.partition_counts(admin, names)
    if missing := [name for name in names if name not in counts]:
        message = f"topic {missing[0]} does not exist; create it with `headwater topics create`"
        raise StartupError(message)
    tps = [TopicPartition(name, number) for name in names for number in range(counts[name])]
    # Of those that serve, whatever role these settings are for.
    committed = await recovery.committed_offsets(msgspec.structs.replace(config, role="serve"), tps)
    ends = await recovery.end_offsets(config, tps)
    lag = {tp: max(ends[tp] - committed[tp], 0) for tp in tps}
    with suppress(TopicAuthorizationFailedError):  # who may not read still sees how many offsets there are
        lag |= await records_between(config, {tp: (committed[tp], ends[tp]) for tp in tps if 0 < lag[tp] <= COUNTED})
    return {f"{tp.topic}-{tp.partition}": {"committed": committed[tp], "end": ends[tp], "lag": lag[tp]} for tp in tps}


async def records_between(
    config: EngineConfig, spans: Mapping[TopicPartition, tuple[int, int]]
) -> dict[TopicPartition, int]:
    """How many records each partition has from one offset to before another.

    Fewer than offsets where a producer writes in transactions: each leaves a marker, which nobody ever reads.
    """
    found = dict.fromkeys(spans, 0)
    async for batches in read_between(config, spans):
        for tp, records in batches.items():
            found[tp] += len(records)
    return found


async def reported(pipeline: Pipeline, config: EngineConfig) -> Board:
    """The newest report and the incidents; none where there are no such topics, as before the first worker."""
    try:
        return await board_of(pipeline, config)
    except StartupError:
        return Board(pipeline.name)


async def status(settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    """Everything `headwater status` shows."""
    url = metrics_url(settings)
    samples = await scrape(url, settings.web_token)
    config = settings.engine_config(pipeline.name)
    partitions = await lags(pipeline, config)
    said = await controls(pipeline, config, samples or {})
    told = await reported(pipeline, config)
    report, incidents = told.latest, told.incidents()
    return {
        "pipeline": pipeline.name,
        "broker": settings.broker,
        "worker": {"url": url, "answers": samples is not None},
        "partitions": partitions,
        "learning_frozen": said.learning_frozen,
        "control": None if said.last is None else as_dict(said.last),
        "verdict": as_json(judge(report, incidents)),
        "report": top.short(report),
        "words": list(top.words(report, incidents)),
        "metrics": {k: v for k, v in (samples or {}).items() if "_bucket" not in k},
    }


def words(values: Mapping[str, Any]) -> Iterator[str]:
    """What people are told of the control records; nothing where there are none.

    >>> from app.control import Said
    >>> from learning.records import Control
    >>> said = as_dict(Said(7, Control("freeze", 1_769_927_400_000, "ann")))
    >>> list(words({"learning_frozen": True, "control": said}))
    ['learning is frozen; `headwater thaw` lets it go on', 'said: freeze by ann, 2026-02-01T06:30:00.000Z, offset 7']
    """
    if values["learning_frozen"]:
        yield "learning is frozen; `headwater thaw` lets it go on"
    if values["control"] is not None:
        yield f"said: {summary(values['control'])}"


def told(samples: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Samples that people are shown: of a counter's kinds, those of which there were any.

    >>> list(told({"labels_total{outcome=late}": 0.0, "labels_total{outcome=matched}": 2.0, "model_lag": 0.0}))
    [('labels_total{outcome=matched}', 2.0), ('model_lag', 0.0)]
    """
    return ((name, value) for name, value in samples.items() if value or "_total{" not in name)
