"""Follows a pipeline's output topics as lines of JSON: `headwater tail`."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from learning.records import decoded
from pipelines.definition import Pipeline
from streaming import clients, topics
from streaming.config import EngineConfig
from streaming.errors import StartupError

WHAT: dict[str, Callable[[Pipeline], str]] = {
    "predictions": lambda p: p.predictions_topic,
    "training-log": lambda p: p.training_log_topic,
    "drift": lambda p: p.drift_topic,
    "dead-letters": lambda p: p.dead_letters_topic,
    "summaries": lambda p: p.summaries_topic,
    "reports": lambda p: p.reports_topic,
    "incidents": lambda p: p.incidents_topic,
}


_ANY = msgspec.json.Decoder(Any)


async def follow(config: EngineConfig, topic: str, *, beginning: bool) -> AsyncGenerator[Any, None]:
    """Records of the topic, without end."""
    async with topics.admin_client(config) as admin:
        if not await topics.partition_counts(admin, [topic]):
            message = f"topic {topic} does not exist; create it with `headwater topics create`"
            raise StartupError(message)
    offsets = "earliest" if beginning else "latest"
    async with clients.consumer(config, topic, auto_offset_reset=offsets) as consumer:
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    yield record


def as_line(record: Any) -> dict[str, Any]:
    """A record as JSON has it; bytes that are not JSON are shown as text."""
    try:
        value: Any = decoded(_ANY, record.value or b"null")
    except msgspec.DecodeError:
        value = record.value.decode(errors="replace")
    line = {"partition": record.partition, "offset": record.offset, "value": value}
    if record.headers:
        headers = record.headers  # whose values may be null
        line["headers"] = {name: data if data is None else data.decode(errors="replace") for name, data in headers}
    return line


async def tail(
    config: EngineConfig,
    topic: str,
    show: Callable[[dict[str, Any]], None],
    *,
    beginning: bool,
    limit: int | None,
) -> None:
    """Show records one by one until the limit or Ctrl-C."""
    shown = 0
    async with aclosing(follow(config, topic, beginning=beginning)) as records:
        async for record in records:
            show(as_line(record))
            shown += 1
            if shown == limit:
                return
