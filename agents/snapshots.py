"""Saves the model now and then, and starts from what was saved. The owner of the training log writes; all read.

A snapshot is a cache of the fold over the log. Whatever is wrong with one is said loudly, and an older one or the log
itself serves.
"""

import asyncio
import logging
import time
from contextlib import suppress

import msgspec
from pydantic import SecretBytes

from agents.loop import Loop
from learning import snapshots
from learning.learn import Learner
from learning.rollback import Run, lineage
from learning.snapshots import SnapshotError
from streaming.snapshots import SnapshotStore, Stored

log = logging.getLogger(__name__)


class SnapshotPolicy(msgspec.Struct, frozen=True):
    """When a snapshot is due, how many are kept, and what signs them.

    Attributes:
        examples: examples between two; 0 for never.
        seconds: time after which one is due too, if anything was learned.
        slots: how many are kept.
        keys: signing keys; the first signs, all are believed.
    """

    examples: int
    seconds: float
    slots: int
    keys: tuple[SecretBytes, ...] = ()

    def raw_keys(self) -> list[bytes]:
        """The keys as they are, for passing on only."""
        return [key.get_secret_value() for key in self.keys]


class Snapshots:
    """Snapshots of one worker's model."""

    def __init__(self, loop: Loop, store: SnapshotStore, policy: SnapshotPolicy) -> None:
        self._loop = loop
        self._store = store
        self._policy = policy
        self._saved_examples = 0
        self._saved_turns = 0
        self._saved_at = time.monotonic()
        self._writing: asyncio.Task[None] | None = None

    async def restore(self) -> int:
        """Take over the newest snapshot that can be believed; the log position it ends at, 0 where there is none."""
        for stored in await self._store.read():
            learner = await self._load(stored)
            if learner is not None:
                self._take(learner)
                log.info(
                    "the model starts from a snapshot at version %d, %d examples", learner.version, learner.examples
                )
                return learner.version
        return 0

    async def before(self, version: int) -> tuple[Learner, list[Run]]:
        """What an earlier version is made again from: a snapshot, or a new model, and what of the log to learn."""
        found = _by_version(await self._store.read())
        while True:
            base, runs = lineage(self._loop.learner.turns, version, found)
            if base is None:
                return Learner(self._loop.pipeline), runs
            learner = await self._load(found.pop(base))
            if learner is not None:
                return learner, runs

    async def _load(self, stored: Stored) -> Learner | None:
        """The model of a snapshot; None, said loudly, for one that cannot be believed."""
        try:
            return await asyncio.to_thread(
                snapshots.load, stored.manifest, stored.chunks, self._loop.pipeline, self._policy.raw_keys()
            )
        except SnapshotError as error:
            self._loop.metrics.count("snapshots_refused_total", kind=error.kind)
            log.error("the snapshot in slot %d is not used (%s): %s", stored.slot, error.kind, error)  # noqa: TRY400
            return None

    def consider(self) -> None:
        """Save the model if it is due; the owner of the log calls it now and then. Does not wait."""
        learner, policy = self._loop.learner, self._policy
        learned = learner.examples - self._saved_examples
        # After a rollback a start would have to make the model of then again, so what came of it is saved at once.
        turned = len(learner.turns) != self._saved_turns
        if not policy.examples or not (learned > 0 or turned):
            return
        if self._writing is not None and not self._writing.done():
            return
        if turned or learned >= policy.examples or time.monotonic() - self._saved_at >= policy.seconds:
            self._save(learner)

    def _take(self, learner: Learner) -> None:
        self._loop.learner = learner
        self._saved_examples, self._saved_turns = learner.examples, len(learner.turns)
        self._loop.metrics.gauge("snapshot_version", learner.version)

    def _save(self, learner: Learner) -> None:
        """Take the snapshot now, without an await, so that it is of one version; write it in a task of its own."""
        started = time.monotonic()
        self._saved_examples, self._saved_turns = learner.examples, len(learner.turns)
        self._saved_at = started
        try:
            manifest, chunks = snapshots.dump(
                learner, self._loop.pipeline, created_ms=int(time.time() * 1000), keys=self._policy.raw_keys()
            )
        except SnapshotError as error:
            self._failed(error)
            return
        self._loop.metrics.observe("snapshot_seconds", time.monotonic() - started)
        # From the model and not from a count, so that the next owner of the log goes on where this one stopped.
        slot = learner.examples // self._policy.examples % self._policy.slots
        self._writing = asyncio.create_task(self._write(slot, manifest, chunks, learner.version))

    async def _write(self, slot: int, manifest: bytes, chunks: list[bytes], version: int) -> None:
        try:
            await self._store.write(slot, manifest, chunks)
        except Exception as error:  # noqa: BLE001  # a cache that cannot be written must not end the worker
            self._failed(error)
            return
        self._loop.metrics.count("snapshots_total")
        self._loop.metrics.gauge("snapshot_version", version)

    def _failed(self, error: Exception) -> None:
        self._loop.metrics.count("snapshots_refused_total", kind="write_failed")
        log.error("the model was not saved; the training log still has all of it: %s", error)


def _by_version(found: list[Stored]) -> dict[int, Stored]:
    """Snapshots by the version that they say they are of; one that says nothing is left out."""
    versions = {}
    for stored in found:
        with suppress(SnapshotError):
            versions[snapshots.read_manifest(stored.manifest).version] = stored
    return versions
