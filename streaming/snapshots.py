"""Model snapshots on a compacted topic: numbered slots, each a run of chunks and a manifest written last.

Bytes only: what is in them, and whether to believe it, is for `learning.snapshots`. A writer that dies in the middle
leaves a slot whose manifest does not fit its chunks; it is refused by its hash, and an older slot serves.
"""

from collections.abc import Sequence

import msgspec
from aiokafka import TopicPartition

from streaming import clients
from streaming.checkpoint import send_all
from streaming.config import EngineConfig
from streaming.reading import read_up_to
from streaming.unit import Output

MANIFEST = "manifest"


class Stored(msgspec.Struct, frozen=True):
    """What a slot holds, as it was found.

    Attributes:
        slot: the slot's number.
        offset: where its manifest lies; the newest snapshot has the highest.
        manifest: the manifest.
        chunks: the chunks by number, as many as there are in a row.
    """

    slot: int
    offset: int
    manifest: bytes
    chunks: Sequence[bytes]


def key_of(slot: int, part: str | int) -> bytes:
    """The record key of a chunk, by its number, or of the manifest.

    >>> key_of(2, 7), key_of(2, MANIFEST)
    (b'2/00007', b'2/manifest')
    """
    return f"{slot}/{part:05d}".encode() if isinstance(part, int) else f"{slot}/{part}".encode()


class SnapshotStore:
    """The slots of one topic."""

    def __init__(self, config: EngineConfig, topic: str, slots: int) -> None:
        self._config = config
        self._tp = TopicPartition(topic, 0)
        self._slots = slots

    async def read(self) -> list[Stored]:
        """Every slot that has a manifest, the newest first."""
        values: dict[bytes, tuple[int, bytes | None]] = {}
        consumer = clients.consumer(self._config, auto_offset_reset="none")
        await consumer.start()
        try:
            consumer.assign([self._tp])
            # A snapshot is a cache: one whose head was removed is an incomplete one, and no error.
            consumer.seek(self._tp, (await consumer.beginning_offsets([self._tp]))[self._tp])
            ends = await consumer.end_offsets([self._tp])
            async for batches in read_up_to(consumer, ends, patience=self._config.request_timeout):
                for record in batches.get(self._tp, []):
                    if record.key is not None:
                        values[record.key] = (record.offset, record.value)
        finally:
            await consumer.stop()
        found = [stored for slot in range(self._slots) if (stored := _stored(slot, values)) is not None]
        return sorted(found, key=lambda stored: -stored.offset)

    async def write(self, slot: int, manifest: bytes, chunks: Sequence[bytes]) -> None:
        """Write chunks, wait until the broker has them, then the manifest."""
        producer = clients.producer(self._config)
        await producer.start()
        try:
            await send_all(producer, {self._tp: [Output(key_of(slot, n), chunk) for n, chunk in enumerate(chunks)]})
            await send_all(producer, {self._tp: [Output(key_of(slot, MANIFEST), manifest)]})
        finally:
            await producer.stop()


def _stored(slot: int, values: dict[bytes, tuple[int, bytes | None]]) -> Stored | None:
    offset, manifest = values.get(key_of(slot, MANIFEST), (0, None))
    if manifest is None:
        return None
    chunks: list[bytes] = []
    while (chunk := values.get(key_of(slot, len(chunks)), (0, None))[1]) is not None:
        chunks.append(chunk)
    return Stored(slot, offset, manifest, chunks)
