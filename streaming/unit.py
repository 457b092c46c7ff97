"""A unit: one partition number of a co-partitioned topic group, the grain of ownership and of checkpoints.

Agents write to it record by record; the engine opens, cuts and closes it. It never talks to Kafka.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import ConsumerRecord, TopicPartition

from streaming.state import Partition, Span

Headers = Sequence[tuple[str, bytes]]

MAX_ASKED = 256  # end offsets remembered per partition; a backlog that takes longer just learns less often


class Output(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record to be written by the next checkpoint of a unit."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Chunk(msgspec.Struct, weakref=True):
    """Records of one partition in offset order, as they reach an agent.

    Attributes:
        tp: the source partition.
        base: the offset that followed the last record delivered before this chunk.
        records: the raw records.
        generation: the group's generation in which it was fetched.
        begun: whether an agent has begun with it, so that nothing more is put into it.
    """

    tp: TopicPartition
    base: int
    records: list["ConsumerRecord[Any, Any]"]
    generation: int = 0
    begun: bool = False

    def begin(self) -> Sequence["ConsumerRecord[Any, Any]"]:
        """Its records; no more come to it."""
        self.begun = True
        return self.records


class Cut(msgspec.Struct, frozen=True):
    """All that one checkpoint makes durable, taken without an await: one consistent instant of the unit."""

    outputs: Mapping[TopicPartition, Sequence[Output]]
    offsets: Mapping[TopicPartition, int]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.outputs and not self.offsets


class Unit:
    """State, progress and buffered outputs of one owned partition number.

    Attributes:
        progress: how far the agents have come, in their own terms; set by them, read back through `read_to`.
        before_cut: called at the beginning of each cut, for what is only made then; set by the agents.
        after_save: called when a checkpoint of it was committed; set by the agents.
        lag: records of each source topic not done yet, as of when the engine last asked.
        kept: what the agents keep of it in memory, by their own names.

    Life: opened by recovery, closed on revocation. Closed, it refuses records, so that a batch that is still
    in an agent's hands cannot write to a partition that somebody else owns by now.
    """

    def __init__(
        self,
        group: str,
        partition: int,
        state: Mapping[str, Partition[Any]],
        offsets: Mapping[TopicPartition, int],
    ) -> None:
        self.group = group
        self.partition = partition
        self.state = state
        self.open = True
        self.progress: Any = None
        self.before_cut: Callable[[Unit], None] | None = None
        self.after_save: Callable[[Unit], None] | None = None
        self.lag: dict[str, int] = {}
        self.kept: dict[str, Any] = {}
        self._asked: dict[TopicPartition, list[tuple[int, Any]]] = {tp: [] for tp in offsets}
        self._read_to: dict[TopicPartition, Any] = {}
        self._immediate: list[tuple[TopicPartition, Output]] = []
        self._marks = dict(offsets)
        self._committed = dict(offsets)
        self._outputs: dict[TopicPartition, list[Output]] = {}

    def __repr__(self) -> str:
        return f"<Unit {self.group}-{self.partition} {'open' if self.open else 'closed'}>"

    @property
    def marks(self) -> Mapping[TopicPartition, int]:
        """The offset after the last finished record, per source partition."""
        return self._marks

    def take(self, chunk: Chunk) -> Sequence["ConsumerRecord[Any, Any]"] | None:
        """The records of the chunk that are still to be done, or None when the chunk does not follow.

        Marks are contiguous: a chunk that begins after the mark would skip records, so it is refused as a whole.
        """
        mark = self._marks.get(chunk.tp)
        if not self.open or mark is None or chunk.base > mark:
            return None
        return [record for record in chunk.begin() if record.offset >= mark]

    def mark(self, tp: TopicPartition, offset: int) -> None:
        """Say that the record at this offset and all before it are finished."""
        self._marks[tp] = offset + 1

    def ends_at(self, ends: Mapping[TopicPartition, int], progress: Any) -> None:
        """Learn where the source partitions ended when `progress` was this unit's progress."""
        for tp, asked in self._asked.items():
            if tp in ends and len(asked) < MAX_ASKED:
                asked.append((ends[tp], progress))

    def read_to(self, topic: str, reached: Callable[[TopicPartition, int], int]) -> Any:
        """The newest `progress` of which is known that all that this topic held by then has been done; else None.

        What the unit has marked is not enough to know: the last offsets of a partition may be transaction markers or
        aborted records, which are never delivered.

        Args:
            topic: a source topic.
            reached: the offset that has been read to, for a partition and its mark.
        """
        for tp, asked in self._asked.items():
            if tp.topic == topic:
                at = reached(tp, self._marks[tp])
                while asked and asked[0][0] <= at:
                    self._read_to[tp] = asked.pop(0)[1]
                return self._read_to.get(tp)
        return None

    def emit(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        """Buffer a record for the next checkpoint."""
        outputs = self._outputs.get((topic, partition))  # which equals a TopicPartition
        if outputs is None:
            outputs = self._outputs[TopicPartition(topic, partition)] = []
        outputs.append(Output(key, value, headers))

    @property
    def has_outputs(self) -> bool:
        """Whether something waits for the next checkpoint to be published."""
        return bool(self._outputs)

    def emit_now(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Buffer a record that is published outside the transaction, at the next turn at the latest."""
        self._immediate.append((TopicPartition(topic, partition), Output(key, value)))

    def take_immediate(self) -> Mapping[TopicPartition, list[Output]]:
        """The records to be published at once, and forget them."""
        records: dict[TopicPartition, list[Output]] = {}
        for tp, output in self._immediate:
            records.setdefault(tp, []).append(output)
        self._immediate = []
        return records

    def cut(self) -> Cut:
        """Take the buffered outputs, the dirty state and the offsets that belong to them. Never awaits.

        Records are marked one by one with no await between a record's effects and its mark, so whatever is
        in memory now belongs exactly to the records before the marks.
        """
        if self.before_cut is not None:
            self.before_cut(self)
        outputs: dict[TopicPartition, Sequence[Output]] = dict(self._outputs)
        self._outputs = {}
        for part in self.state.values():
            changed = part.take_changes()
            if changed:
                outputs[TopicPartition(part.topic, self.partition)] = changed
        offsets = {tp: mark for tp, mark in self._marks.items() if mark != self._committed[tp]}
        self._committed.update(offsets)
        return Cut(outputs, offsets)

    def committed(self, written: Mapping[TopicPartition, Span]) -> None:
        """Told that the last cut is durable, and where its records are. Raises StoreError."""
        for part in self.state.values():
            part.committed(written.get(TopicPartition(part.topic, self.partition)))

    def close(self) -> None:
        """Refuse every further record."""
        self.open = False

    def drop(self) -> None:
        """Let go of the state; nothing of it is asked for any more."""
        for part in self.state.values():
            part.close()
