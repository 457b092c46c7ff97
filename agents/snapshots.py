"""Saves the model now and then, and starts from what was saved. The owner of the training log writes; all read.

A snapshot is a cache of the fold over the log. Whatever is wrong with one is said loudly, and an older one or the log
itself serves.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import msgspec
from mode import Service
from pydantic import SecretBytes

from agents.loop import Loop
from learning import snapshots
from learning.learn import Learner, Turn
from learning.rollback import Run, lineage
from learning.snapshots import SnapshotError
from pipelines.definition import Pipeline
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


Refused = Callable[[Stored, SnapshotError], None]


class Shelf:
    """The snapshots that were found at one time. What cannot be believed is told once, and is no longer there.

    Args:
        found: the slots, the newest first.
        pipeline: whose models they are to be.
        keys: one of them must have signed, where there are any.
        refused: told of each that is not used, and why.
    """

    def __init__(self, found: Sequence[Stored], pipeline: Pipeline, keys: Sequence[bytes], refused: Refused) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._refused = refused
        self._found: list[tuple[int, Stored]] = []
        for stored in found:
            try:
                self._found.append((snapshots.read_manifest(stored.manifest).version, stored))
            except SnapshotError as error:
                refused(stored, error)

    async def newest(self) -> Learner | None:
        """The learner that was saved last, of those that can be believed."""
        while self._found:
            learner = await self._load(*self._found[0])
            if learner is not None:
                return learner
        return None

    async def before(self, turns: Sequence[Turn], version: int) -> tuple[Learner, list[Run]]:
        """What a version is made again from: a snapshot, or a new model, and what of the log to learn after it.

        Args:
            turns: what the control records before the version did.
            version: the version.
        """
        while True:
            by_version = dict(reversed(self._found))  # the newest of each
            base, runs = lineage(turns, version, by_version)
            if base is None:
                return Learner(self._pipeline), runs
            learner = await self._load(base, by_version[base])
            if learner is not None:
                return learner, runs

    async def _load(self, version: int, stored: Stored) -> Learner | None:
        try:
            return await asyncio.to_thread(snapshots.load, stored.manifest, stored.chunks, self._pipeline, self._keys)
        except SnapshotError as error:
            self._found.remove((version, stored))
            self._refused(stored, error)
            return None


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
        learner = await (await self._shelf()).newest()
        if learner is None:
            return 0
        self._take(learner)
        log.info("the model starts from a snapshot at version %d, %d examples", learner.version, learner.examples)
        return learner.version

    async def before(self, turns: Sequence[Turn], version: int) -> tuple[Learner, list[Run]]:
        """What a version is made again from, given the log's turns; see `Shelf.before`."""
        return await (await self._shelf()).before(turns, version)

    async def _shelf(self) -> Shelf:
        return Shelf(await self._store.read(), self._loop.pipeline, self._policy.raw_keys(), self._refused)

    def _refused(self, stored: Stored, error: SnapshotError) -> None:
        self._loop.metrics.count("snapshots_refused_total", kind=error.kind)
        log.error("the snapshot in slot %d is not used (%s): %s", stored.slot, error.kind, error)

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

    async def written(self) -> None:
        """Wait until nothing is being written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def _take(self, learner: Learner) -> None:
        self._loop.learner = learner
        self._saved_examples, self._saved_turns = learner.examples, len(learner.turns)
        self._loop.metrics.gauge("snapshot_version", learner.version)
        self._loop.tell_model()  # the log may have nothing beyond it to learn

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


class Finish(Service):
    """Has a snapshot that is being written when the worker stops be whole: the next start would refuse half of one."""

    def __init__(self, snapshots_: Snapshots) -> None:
        super().__init__()
        self._snapshots = snapshots_

    async def on_stop(self) -> None:
        """Wait for it; how long a worker may take to stop is the worker's to say."""
        await self._snapshots.written()
