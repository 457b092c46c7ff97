"""Changelog-backed tables: Faust's table for membership and co-partitioning, own state and recovery.

Faust's memory store replays changelogs record by record at about 60 us each and commits without waiting for them
(FAUST notes D3, D10), so a `StateTable` keeps its partitions itself: the engine loads and writes them in bulk.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import faust
import msgspec
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP

from streaming.disk import DiskPartition, DueOf
from streaming.state import Partition, StatePartition
from streaming.stores import Stores

V = TypeVar("V")


class OnDisk(msgspec.Struct, frozen=True):
    """How the partitions of a table are kept where state is on disk.

    Attributes:
        schema: changes when values are written otherwise; a store of another schema is built anew.
        due_of: the queue that an entry is in, from its key and bytes alone.
        kinds: of queues.
        cached: whether decoded values are kept; else they cost nothing to decode.
    """

    schema: str
    due_of: DueOf | None = None
    kinds: Sequence[int] = ()
    cached: bool = True


class StateTable(faust.Table[str, Any], Generic[V]):
    """A table whose partitions are owned by units. Agents read and write `unit.state[name]`."""

    def __init__(
        self,
        app: faust.App,
        *,
        name: str,
        partitions: int,
        load: Callable[[str, bytes], V],
        dump: Callable[[V], bytes],
        disk: OnDisk | None = None,
    ) -> None:
        super().__init__(app, name=name, partitions=partitions)
        self._load_value = load
        self._dump_value = dump
        self._disk = disk
        self._recovered: dict[int, int] = {}

    @property
    def changelog(self) -> str:
        """Name of the changelog topic."""
        return str(self.changelog_topic_name)

    @property
    def changelog_topic_name(self) -> str:
        """Faust's own naming, kept so that its partition assignor finds the topic."""
        return f"{self.app.conf.id}-{self.name}-changelog"

    def new_partition(self) -> StatePartition[V]:
        """An empty partition of this table, in memory."""
        return StatePartition(self.changelog, load=self._load_value, dump=self._dump_value)

    async def open_partition(self, number: int, stores: Stores | None) -> Partition[V]:
        """A partition of this table: as its store has it, where there are stores and the table is for them.

        Raises StoreError.
        """
        if stores is None or self._disk is None:
            return self.new_partition()
        return DiskPartition(
            self.changelog,
            await stores.open(f"{self.name}-{number}", self._disk.schema),
            cache=stores.cache if self._disk.cached else None,
            load=self._load_value,
            dump=self._dump_value,
            due_of=self._disk.due_of,
            kinds=self._disk.kinds,
            transactional=stores.transactional,
        )

    def recovered(self, partition: int, position: int) -> None:
        """Remember how far the changelog has been read, so that Faust finds nothing left to recover."""
        self._recovered[partition] = position

    def persisted_offset(self, tp: TP) -> int | None:
        """Offset up to which the table is up to date."""
        return self._recovered.get(tp.partition)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Nothing to do: units are opened and closed by the engine."""


class NothingToRecover(Recovery):
    """Faust's recovery service, told that all tables are up to date.

    It compares a table's position with the end of its changelog, and the units, already open by then, may have written
    beyond it: it would wait for ever for records that are the unit's own, or are transaction markers.
    """

    def need_recovery(self) -> bool:
        """Never: the engine has recovered the units before Faust gets here."""
        return False


class StateTableManager(TableManager):
    """Faust's table manager without its recovery."""

    @property
    def recovery(self) -> Recovery:
        """The recovery service that has nothing to do."""
        if self._recovery is None:
            self._recovery = NothingToRecover(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
