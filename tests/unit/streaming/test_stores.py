"""Stores: believed only where that is right, built anew where it is not, closed to others while in use."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streaming import stores as stores_of_a_worker
from streaming.cache import OVERHEAD, Cache
from streaming.config import EngineConfig
from streaming.disk import DiskPartition
from streaming.errors import StartupError, StoreError
from streaming.state import Changelog, Span
from streaming.stores import DAMAGED, FORMAT, Batch, Meta, Store, Stores, mistrust

pytest.importorskip("rocksdict")

DAY = 86_400.0
TOPIC = b"t" * 16
META = Meta(FORMAT, "s", TOPIC, 70, 1_000_000.0)


def told(end: int = 90, *, after: float = 60.0, topic: bytes = TOPIC, keeps: float | None = DAY) -> Changelog:
    return Changelog(0, end, META.stamp + after, topic, keeps)


@pytest.mark.parametrize(
    ("changelog", "schema", "why"),
    [
        (told(), "s", ""),
        (told(after=DAY / 2), "s", ""),
        (told(end=69), "s", "it is at offset 70, and the changelog ends at 69"),
        (told(topic=b"u" * 16), "s", "it is of a changelog with id 7474"),
        (told(topic=b""), "s", "and there is none"),
        (told(), "other", "its values are written as 's' in format"),
        (told(after=DAY / 2 + 1), "s", "some may be gone from it"),
        (told(after=-1.0), "s", "it is -1 s old"),
        (told(keeps=None), "s", "needs DescribeConfigs on the topic"),
        (told(end=71, after=9 * DAY), "s", ""),  # its own marker, so nothing has been written since
        (told(end=72, after=9 * DAY), "s", "some may be gone from it"),
        (told(end=70, keeps=None), "s", ""),
    ],
)
def test_a_store_is_believed_only_where_that_is_right(changelog: Changelog, schema: str, why: str) -> None:
    found = mistrust(META, schema, changelog, transactional=True)
    assert (why in found) if why else found == ""


def test_without_transactions_one_offset_more_may_be_a_removal() -> None:
    assert mistrust(META, "s", told(end=71, after=9 * DAY), transactional=False)
    assert not mistrust(META, "s", told(end=70, after=9 * DAY), transactional=False)


def stores(folder: Path, **settings: Any) -> Stores:
    config: dict[str, Any] = {"bootstrap": "nowhere:1", "app_id": "a", "data_dir": folder, "store_cache_mb": 8}
    return Stores(EngineConfig(**config | settings))


def opened(made: Stores, changelog: Changelog | None = None, **settings: Any) -> DiskPartition[bytes]:
    """A partition that has been recovered, from a changelog of which nothing came."""
    settings = {"cache": made.cache, "load": lambda _, data: data, "dump": bytes, **settings}
    part: DiskPartition[bytes] = DiskPartition("t", asyncio.run(made.open("t-0", "s")), **settings)
    log = changelog or told()
    part.start(log)
    part.restored(log.end, log)
    return part


def saved(part: DiskPartition[bytes], first: int, **values: bytes) -> None:
    """Values that have been committed from this offset on."""
    part.update(values)
    part.committed(Span(first, first + len(part.take_changes())))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def reopened(folder: Path, end: int) -> tuple[dict[str, bytes], int]:
    """What is found in the store by the next owner, and from where the changelog is to be read."""
    part: DiskPartition[bytes] = DiskPartition(
        "t",
        asyncio.run(stores(folder).open("t-0", "s")),
        cache=None,
        load=lambda _, data: data,
        dump=bytes,
    )
    start = part.start(told(end))
    found = dict(part)
    part.close()
    return found, start


def test_only_what_is_committed_is_in_the_store(folder: Path) -> None:
    part = opened(stores(folder))
    saved(part, 90, a=b"1", b=b"2")
    part["a"] = b"3"
    part.take_changes()
    del part["b"]
    part["c"] = b"4"
    assert dict(part) == {"a": b"3", "c": b"4"}
    part.close()
    assert reopened(folder, 93) == ({"a": b"1", "b": b"2"}, 92)


def test_a_second_cut_before_the_first_is_committed_is_refused(folder: Path) -> None:
    part = opened(stores(folder))
    part["a"] = b"1"
    part.take_changes()
    with pytest.raises(RuntimeError, match="taken while those of the last cut are not committed"):
        part.take_changes()
    part.close()


@pytest.mark.parametrize("span", [None, Span(-1, 0), Span(95, 96)])
def test_an_offset_that_is_unknown_or_behind_what_others_wrote_is_not_believed(folder: Path, span: Span | None) -> None:
    part = opened(stores(folder, guarantee="at_least_once"), transactional=False)
    part["a"] = b"1"
    part.take_changes()
    part.committed(span)
    part.close()
    assert reopened(folder, 97) == ({"a": b"1"}, 90)


def test_a_removed_key_is_not_found_in_the_cache(folder: Path) -> None:
    part = opened(stores(folder))
    saved(part, 90, a=b"1")
    assert part.pop("a") == b"1"
    part.committed(Span(92, 92 + len(part.take_changes())))
    assert "a" not in part
    assert part.pop("a", b"none") == b"none"
    with pytest.raises(KeyError):
        del part["a"]
    part.close()


def test_what_is_not_to_be_believed_is_built_anew_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = opened(stores(folder))
    saved(part, 90, a=b"1")
    part.close()
    assert reopened(folder, 80) == ({}, 0)
    assert (
        "is removed and built anew from its changelog: it is at offset 91, and the changelog ends at 80" in caplog.text
    )


@pytest.mark.parametrize("file", ["CURRENT", "*.sst", "MANIFEST-*"])
@pytest.mark.parametrize("how", ["garbage", "gone"])
def test_a_damaged_store_is_built_anew(folder: Path, file: str, how: str) -> None:
    """At once where RocksDB sees it when it opens; else the worker ends, and the next start does."""
    part = opened(stores(folder))
    saved(part, 90, **{f"k{number}": b"x" * 2_000 for number in range(500)})
    part._store._db.flush()
    part.close()
    (found,) = folder.rglob(file)
    if how == "gone":
        found.unlink()
    else:
        found.write_bytes(bytes(255 - byte for byte in found.read_bytes()))
    try:
        assert reopened(folder, 600)[0] == {}
    except StoreError as error:
        assert "is damaged" in str(error)  # noqa: PT017  # or else there is none
        assert reopened(folder, 600) == ({}, 0)


def test_a_read_of_a_damaged_block_marks_the_store(folder: Path) -> None:
    part = opened(stores(folder))
    saved(part, 90, **{f"k{number}": bytes([number % 251]) * 2_000 for number in range(2_000)})
    part._store._db.flush()
    part.close()
    (table,) = folder.rglob("*.sst")
    data = bytearray(table.read_bytes())
    for at in range(1_000, len(data) // 2, 1_000):
        data[at] ^= 255
    table.write_bytes(data)
    part = opened(stores(folder), told(2_090), cache=None)
    with pytest.raises(StoreError, match=r"is damaged: Corruption.*Start the worker again"):
        dict(part)
    part.close()
    assert list(folder.rglob(DAMAGED))
    assert reopened(folder, 2_091) == ({}, 0)
    assert not list(folder.rglob(DAMAGED))


HOLD = """
import sys, time
from rocksdict import Options, Rdict
db = Rdict(sys.argv[1], Options(raw_mode=True))
print("open", flush=True)
time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> "subprocess.Popen[str]":
    """Another process that has a store open for so long."""
    path.mkdir(parents=True)
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    return other


def test_a_store_that_another_process_holds_is_waited_for_and_not_for_ever(folder: Path) -> None:
    with hold(folder / "a.state" / "t-0", 60.0) as other:
        with pytest.raises(StoreError, match="in use by another process, for 1 s now"):
            asyncio.run(stores(folder, request_timeout=1.0).open("t-0", "s"))
        other.kill()
    asyncio.run(stores(folder, request_timeout=1.0).open("t-0", "s")).close()


def test_a_store_that_is_let_go_is_opened(folder: Path) -> None:
    with hold(folder / "a.state" / "t-0", 1.0):
        asyncio.run(stores(folder).open("t-0", "s")).close()


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot be used: .*Give the worker a HEADWATER_DATA_DIR"):
        asyncio.run(stores(tmp_path / "file").open("t-0", "s"))


@pytest.mark.parametrize("name", [".", "..", "a"])
def test_no_group_has_its_stores_outside_the_folder(tmp_path: Path, name: str) -> None:
    made = stores(tmp_path / "data", app_id=name)
    assert made.folder.resolve().parent == tmp_path / "data"


def test_without_rocksdb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(StartupError, match=r"pip install 'headwater\[disk\]'"):
        stores(tmp_path)


def test_a_write_that_fails_changes_nothing(folder: Path) -> None:
    store: Store = asyncio.run(stores(folder).open("t-0", "s"))
    store.start(told(), transactional=True)
    store._db.close()
    batch = Batch()
    batch.put(b"va", b"1")
    with pytest.raises(StoreError, match="cannot be used"):
        store.write(batch, 91)
    assert store.position == 0


def test_the_journal_of_files_is_begun_anew_and_does_not_grow_up_to_a_gigabyte(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soak found it: every flush adds to it, some megabytes an hour, and RocksDB's own limit is a gigabyte."""
    monkeypatch.setattr(stores_of_a_worker, "MANIFEST", 4_000)
    part = opened(stores(folder), told(end=0))
    for number in range(100):
        saved(part, number, **{f"k{number}": b"v"})
        part._store._db.flush()
    journals = [path.stat().st_size for path in folder.rglob("MANIFEST-*")]
    assert sum(journals) < 10_000, "a hundred flushes write 14,000 bytes or more"
    part.close()
    assert len(reopened(folder, 100)[0]) == 100


def test_the_cache_holds_its_limit_and_forgets_what_was_not_used() -> None:
    cache = Cache(3 * (OVERHEAD + 100))
    for number in range(100):
        cache.put("p", "kept", b"", 100)
        cache.put("p" if number % 2 else "q", f"k{number}", b"", 100)
        assert cache.get("p", "kept") == b""
        assert cache.used <= 3 * (OVERHEAD + 100)
    cache.forget("p")
    cache.forget("q")
    assert cache.used == 0


def test_restoring_refuses_what_cannot_be_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the store in memory does: a worker whose features were changed does not start."""

    def load(_: str, data: bytes) -> bytes:
        message = f"got {data!r}"
        raise ValueError(message)

    caplog.set_level(logging.ERROR)
    part = opened(stores(folder), load=load)
    with pytest.raises(ValueError, match="got b'1'"):
        part.restore(b"a", b"1")
    part.restore(b"a", None)
    part.close()
