"""How a pipeline is doing, from the worker's `/metrics` and from Kafka's offsets: `headwater status`."""

from collections.abc import Mapping
from typing import Any

import aiohttp
from aiokafka import TopicPartition
from pipelines.definition import Pipeline

from app.metrics import parse
from app.settings import Settings
from streaming import recovery, topics
from streaming.config import EngineConfig


def metrics_url(settings: Settings) -> str:
    """Where the worker of these settings answers."""
    return f"http://{settings.web_host}:{settings.web_port}/metrics"


async def scrape(url: str) -> Mapping[str, float] | None:
    """The worker's samples, or None where no worker answers."""
    try:
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return parse(await response.text()) if response.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None


async def lags(pipeline: Pipeline, config: EngineConfig) -> dict[str, dict[str, int]]:
    """Per source partition: committed offset, end offset and what lies between them."""
    names = (pipeline.events.topic, pipeline.labels.topic)
    async with topics.admin_client(config) as admin:
        counts = await topics.partition_counts(admin, names)
    tps = [TopicPartition(name, number) for name in names for number in range(counts.get(name, 0))]
    committed = await recovery.committed_offsets(config, tps)
    ends = await recovery.end_offsets(config, tps)
    return {
        f"{tp.topic}-{tp.partition}": {
            "committed": committed[tp],
            "end": ends[tp],
            "lag": max(ends[tp] - committed[tp], 0),
        }
        for tp in tps
    }


async def status(settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    """Everything `headwater status` shows."""
    url = metrics_url(settings)
    samples = await scrape(url)
    return {
        "pipeline": pipeline.name,
        "broker": settings.broker,
        "worker": {"url": url, "answers": samples is not None},
        "partitions": await lags(pipeline, settings.engine_config(pipeline.name)),
        "metrics": {k: v for k, v in (samples or {}).items() if "_bucket" not in k and "_created" not in k},
    }
