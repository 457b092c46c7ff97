"""RocksDB as the place of a partition's state: opened with bounded memory, believed only where that is right.

A store is a cache of a changelog up to an offset, which is written in the same batch as the state. Batches are not
synced to the disk: what a process has written outlives it, and of what a power cut takes, which is always the end of
the log that RocksDB writes ahead, the changelog has it all.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streaming.cache import Cache
from streaming.config import EngineConfig
from streaming.errors import EngineError, StartupError, StoreError
from streaming.state import Changelog

if TYPE_CHECKING:
    from rocksdict import Options, Rdict

log = logging.getLogger(__name__)

FORMAT = 1  # of keys and values in a store; another is built anew
META = b"m"
DAMAGED = "DAMAGED"  # a file in the folder of a store that could not be read, so that it is not opened again
BACKOFF = 0.2  # seconds before a folder that another process uses is tried again

# Of what the worker's state on disk may take in memory: decoded values, write buffers, and blocks with their indexes.
DECODED, BUFFERS = 0.5, 0.125
MEMTABLE = 8 << 20  # bytes; a partition's own write buffer, where fewer are not all that there may be
OPEN_FILES = 256
MANIFEST = 64 << 10  # bytes of RocksDB's journal of its files before it writes a new one; its default is a gigabyte
BLOOM_BITS = 10
# A queue is read from the end that is taken away, so its removed keys are cleared out before all else.
TOMBSTONES_WINDOW, TOMBSTONES_MOST = 4_096, 2_048


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """What a store knows about itself.

    Attributes:
        format: the layout of the store.
        schema: the layout of the values.
        topic_id: the changelog's.
        position: the changelog's offset up to which everything is in the store.
        stamp: a time, in seconds since 1970, by which nothing that lies behind the position had been written; in a
            store that is being built, when that was begun.
    """

    format: int
    schema: str
    topic_id: bytes
    position: int
    stamp: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Meta).decode


def mistrust(meta: Meta | None, schema: str, changelog: Changelog, *, transactional: bool) -> str:
    """Why a store is not to be believed; empty where it is. Pure.

    Args:
        meta: what the store says of itself; None where it has never been written.
        schema: the layout of values as they are written now.
        changelog: what the broker says.
        transactional: whether only this unit's owner can have written to the changelog, one marker behind each batch.

    >>> log = Changelog(begin=0, end=9, asked=1000.0, topic_id=b"t", tombstones=100.0)
    >>> mistrust(Meta(FORMAT, "s", b"t", 7, 960.0), "s", log, transactional=True)
    ''
    >>> mistrust(Meta(FORMAT, "s", b"t", 7, 940.0), "s", log, transactional=True)
    'it is 60 s old, and the changelog keeps removals for 100 s, so that some may be gone from it'
    """
    if meta is None:
        return "it is new"
    return next(_reasons(meta, schema, changelog, transactional=transactional), "")


def _reasons(meta: Meta, schema: str, changelog: Changelog, *, transactional: bool) -> Iterator[str]:
    if (meta.format, meta.schema) != (FORMAT, schema):
        yield f"its values are written as {meta.schema!r} in format {meta.format}, expected {schema!r} in {FORMAT}"
    if not changelog.topic_id or meta.topic_id != changelog.topic_id:
        yield f"it is of a changelog with id {meta.topic_id.hex()}, and there is {changelog.topic_id.hex() or 'none'}"
    if meta.position > changelog.end:
        yield f"it is at offset {meta.position}, and the changelog ends at {changelog.end}"
    if changelog.end - meta.position <= transactional:  # nothing has been written since, so nothing was removed
        return
    if changelog.tombstones is None:
        yield "nobody says how long the changelog keeps removals: this user needs DescribeConfigs on the topic"
        return
    age = changelog.asked - meta.stamp
    # Half, since clocks are set anew and a restart takes its time.
    if not 0 <= age <= changelog.tombstones / 2:
        yield (
            f"it is {age:.0f} s old, and the changelog keeps removals for {changelog.tombstones:.0f} s, so that some"
            " may be gone from it"
        )


class Stores:
    """The stores of one worker, and the memory that they share. Raises StartupError where RocksDB is not installed."""

    def __init__(self, config: EngineConfig) -> None:
        try:
            import rocksdict  # noqa: F401, PLC0415  # an extra
        except ImportError as error:
            message = (
                "HEADWATER_STORE=disk needs rocksdict, which is not installed; install it with"
                " `pip install 'headwater[disk]'`, or set HEADWATER_STORE=memory"
            )
            raise StartupError(message) from error
        # The end keeps `.` and `..`, which are names of groups, from being other folders.
        self.folder = config.data_dir / f"{config.app_id}.state"
        self.transactional = config.guarantee == "exactly_once"
        self._patience = config.request_timeout
        budget = config.store_cache_mb << 20
        self.cache = Cache(int(budget * DECODED))
        self._options = _options(int(budget * (1 - DECODED)), int(budget * BUFFERS))

    async def open(self, name: str, schema: str) -> "Store":
        """The store of this name; one that is damaged is removed first.

        Raises:
            StoreError: another process holds it for longer than the request timeout, or the folder cannot be used.
        """
        path = self.folder / name
        until = time.monotonic() + self._patience
        while True:
            try:
                store = Store(path, self._options, schema)
            except Locked as error:
                if time.monotonic() > until:
                    message = (
                        f"the store {path} is in use by another process, for {self._patience:.0f} s now"
                        " (HEADWATER_REQUEST_TIMEOUT). If that is a worker that hangs, end it; workers that are to run"
                        " side by side under other names need a HEADWATER_DATA_DIR each"
                    )
                    raise StoreError(message) from error
                await asyncio.sleep(BACKOFF)
            else:
                await asyncio.sleep(0)  # a worker may have many
                return store


class Locked(Exception):
    """Another process, or this one, has the store open."""


def _options(memory: int, buffers: int) -> "Options":
    """RocksDB's options: write buffers and blocks, with all indexes and filters, within one limit."""
    import rocksdict  # noqa: PLC0415

    cache = rocksdict.Cache(memory)
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(BLOOM_BITS, block_based=False)
    table.set_cache_index_and_filter_blocks(v=True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(v=True)
    # In parts of some kB: the filter of a whole file is a megabyte, and each miss would load one.
    table.set_index_type(rocksdict.BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(size=True)
    table.set_pin_top_level_index_and_filter(v=True)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(create_if_missing=True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_manager(
        rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(buffers, allow_stall=False, cache=cache)
    )
    options.set_write_buffer_size(min(MEMTABLE, buffers))
    options.set_max_open_files(OPEN_FILES)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_max_manifest_file_size(MANIFEST)
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.point_in_time())
    options.add_compact_on_deletion_collector_factory(TOMBSTONES_WINDOW, TOMBSTONES_MOST, 0.5)
    return options


class Batch:
    """Changes that are made together or not at all."""

    def __init__(self) -> None:
        from rocksdict import WriteBatch  # noqa: PLC0415

        self.raw = WriteBatch(raw_mode=True)
        self.put: Callable[[bytes, bytes], None] = self.raw.put
        self.delete: Callable[[bytes], None] = self.raw.delete


class Store:
    """One RocksDB: keys, values, and what it knows about itself.

    Raises Locked where it is open elsewhere, StoreError where the folder cannot be used. One that is damaged is begun
    anew, and so is one that says so.
    """

    def __init__(self, path: Path, options: "Options", schema: str) -> None:
        self.path = path
        self._options = options
        self._schema = schema
        self._is_open = True
        self._db: Rdict = self._opened()
        data = self.get(META)
        try:
            self.meta = None if data is None else _decode(data)
        except msgspec.DecodeError as error:
            self._begin_anew(f"what it says of itself cannot be read: {error}")

    @property
    def position(self) -> int:
        """The offset up to which everything is in it; 0 in a new one."""
        return 0 if self.meta is None else self.meta.position

    def _opened(self) -> "Rdict":
        import rocksdict  # noqa: PLC0415

        if (self.path / DAMAGED).exists():
            self._remove("it was damaged when it was used last")
        for _ in range(2):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                return rocksdict.Rdict(str(self.path), self._options)
            except OSError as error:
                raise self._unusable(error) from error
            except Exception as error:  # rocksdict has no other
                if _is_lock(error):
                    raise Locked(str(self.path)) from error
                if not _is_damage(error):
                    raise self._unusable(error) from error
                self._remove(str(error))
        message = f"the store {self.path} cannot be opened though it is new; use another HEADWATER_DATA_DIR"
        raise StoreError(message)

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(
            f"the store {self.path} cannot be used: {error}. Give the worker a HEADWATER_DATA_DIR that it may write to"
            " and that has room; nothing is lost, since all state is in Kafka"
        )

    def _remove(self, why: str) -> None:
        """Remove it whole: under another name first, so that half of it is never opened."""
        log.error("the store %s is removed and built anew from its changelog: %s", self.path, why)
        rubbish = self.path.with_name(self.path.name + ".rubbish")
        shutil.rmtree(rubbish, ignore_errors=True)
        self.path.rename(rubbish)
        shutil.rmtree(rubbish, ignore_errors=True)

    def _begin_anew(self, why: str) -> None:
        self.close()
        self._remove(why)
        self._db, self.meta = self._opened(), None
        self._is_open = True

    def start(self, changelog: Changelog, *, transactional: bool) -> int:
        """The offset from which the changelog is to be read; what is not to be believed is removed first."""
        why = mistrust(self.meta, self._schema, changelog, transactional=transactional)
        if why:
            if self.meta is not None:
                self._begin_anew(why)
            self.meta = Meta(FORMAT, self._schema, changelog.topic_id, changelog.begin, changelog.asked)
        else:
            log.info("the store %s goes on from offset %d of %d", self.path, self.position, changelog.end)
        return self.position

    def get(self, key: bytes) -> bytes | None:
        """The value of a key. Raises StoreError."""
        try:
            found: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._failed(error) from error
        return found

    def write(self, batch: Batch, position: int, stamp: float | None = None) -> None:
        """Make these changes, and have the store be at this position. Raises StoreError: then nothing was changed."""
        assert self.meta is not None, "a store is started before it is written to"
        stamp = self.meta.stamp if stamp is None else stamp
        meta = msgspec.structs.replace(self.meta, position=position, stamp=stamp)
        batch.put(META, _encode(meta))
        try:
            self._db.write(batch.raw)
        except Exception as error:
            raise self._failed(error) from error
        self.meta = meta

    def keys(self, prefix: bytes, start: bytes, most: int) -> Sequence[bytes]:
        """Up to so many keys with this prefix in order, the first at or behind `start`. Raises StoreError."""
        keys: list[bytes] = []
        try:
            found = self._db.iter()
            found.seek(start)
            while len(keys) < most and found.valid():
                key: bytes = found.key()
                if not key.startswith(prefix):
                    break
                keys.append(key)
                found.next()
            found.status()
        except Exception as error:
            raise self._failed(error) from error
        return keys

    def all_keys(self, prefix: bytes, most: int = 10_000) -> Iterator[bytes]:
        """All keys with this prefix, in order."""
        start = prefix
        while keys := self.keys(prefix, start, most):
            yield from keys
            start = keys[-1] + b"\x00"

    def close(self) -> None:
        """Close it, if it is open. Another process may open it then."""
        if self._is_open:
            self._is_open = False
            self._db.close()

    def _failed(self, error: Exception) -> EngineError:
        """The error for people; a store that is damaged is marked, so that it is not opened again."""
        if _is_damage(error):
            (self.path / DAMAGED).touch()
            return StoreError(
                f"the store {self.path} is damaged: {error}. Start the worker again, and it builds the store anew from"
                " its changelog; if that comes again, look at the disk"
            )
        return self._unusable(error)


def _is_lock(error: Exception) -> bool:
    return "lock file" in str(error) or "lock hold by" in str(error)


def _is_damage(error: Exception) -> bool:
    text = str(error)
    return any(word in text for word in ("Corruption", "No such file", "Invalid argument", "Not implemented"))
