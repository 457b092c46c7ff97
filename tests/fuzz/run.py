"""Lives of workers that are fed what `inputs` makes, and snapshots that nobody should believe."""

import asyncio
import hashlib
import pickle
import resource
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import msgspec

from learning import pickles, snapshots
from learning.learn import Learner, ModelError, copy_of
from learning.records import decode_log
from learning.snapshots import SnapshotError
from learning.watch import Watch
from pipelines.definition import Pipeline
from tests.folds import advance
from tests.fuzz.inputs import Maker, dumped, record
from tests.fuzz.worker import SLOWEST, Broken, Worker, hold

Batch = tuple[str, list[tuple[Any, ...]]]


def batches(maker: Maker, count: int, size: int) -> list[Batch]:
    """What a life is fed: kind and records."""
    chance, found = maker.chance, []
    for _ in range(count):
        kind = chance.choice(("events", "events", "labels", "labels", "lessons"))
        records = getattr(maker, kind)(chance.randrange(1, size + 1))
        found.append((kind, records))
    return found


async def live(pipeline: Pipeline, fed: Sequence[Batch]) -> Worker:
    """One life of a worker. Raises Broken."""
    worker = Worker(pipeline)
    offsets: Counter[str] = Counter()
    for number, (kind, parts) in enumerate(fed):
        if kind == "lessons":
            worker.put(parts)
        else:
            tp = worker.events if kind == "events" else worker.labels
            records = []
            for part in parts:
                records.append(record(tp.topic, offsets[kind], part))
                offsets[kind] += 1 + (len(part[1] or b"") % 7 == 0)  # a marker or an aborted record now and then
            await worker.feed(tp, records)
        if number % 3 == 2:
            await worker.expire()
        if number % 2 or number == len(fed) - 1:
            await worker.checkpoint()
            await worker.follow()
    await worker.checkpoint()
    await worker.follow()
    await worker.checkpoint()
    worker.close()
    _check_fold(worker)
    return worker


def _check_fold(worker: Worker) -> None:
    """The model is the fold by the book of what in the log is a record."""
    log = []
    for one in worker.log:
        try:
            log.append((one.offset, decode_log(one.value or b"")))
        except msgspec.DecodeError:
            continue
    learner = Learner(worker.pipeline)
    for offset, entry in log:
        advance(worker.pipeline, learner, log, offset, entry)
    ours = worker.loop.learner
    hold(
        (ours.version, ours.examples, ours.turns, ours.frozen_version)
        == (learner.version, learner.examples, learner.turns, learner.frozen_version),
        "the model is not the fold over its log",
    )
    width = len(worker.pipeline.feature_set.names)
    for vector in ([0.0] * width, [1.0] * width, [float(n % 5) for n in range(width)]):
        hold(_asked(ours, vector) == _asked(learner, vector), "the model predicts otherwise than the fold over its log")


def _asked(learner: Learner, vector: list[float]) -> Any:
    """What a model says, without the traces that asking leaves in it."""
    try:
        return learner.predict_with(copy_of(learner.model), vector)
    except ModelError:
        return "raises"


# -- snapshots


class Slots:
    """One snapshot of a pipeline's model after some examples, to be damaged again and again."""

    def __init__(self, chance: Random, pipeline: Pipeline) -> None:
        self.chance = chance
        self.pipeline = pipeline
        maker = Maker(chance, pipeline)
        learner = Learner(pipeline)
        for offset in range(40):
            try:
                learner.apply(offset, maker.example())
            except ModelError:
                continue
        self.manifest, self.chunks = snapshots.dump(learner, pipeline, created_ms=1)
        self.raw = zlib.decompress(b"".join(self.chunks))
        self.maker = maker

    def damaged(self) -> tuple[bytes, list[bytes]]:
        """A manifest and chunks, most of them made to fit each other, as by somebody who knows how."""
        c = self.chance
        kind = c.randrange(10)
        if kind < 6:
            raw = self._program() if kind == 0 else self._raw(self.raw)
            return self.fitting(raw)
        if kind == 6:
            return self.maker.bent(self.manifest), self.chunks
        if kind == 7:
            row = {
                **msgspec.json.decode(self.manifest),
                "x" if c.randrange(9) == 0 else self._field(): self.maker.anything(2),
            }
            return dumped(row), self.chunks
        if kind == 8:
            payload = b"".join(self.chunks)
            parts = [payload[at : at + 97] for at in range(0, len(payload), 97)]
            row = {**msgspec.json.decode(self.manifest), "n_chunks": len(parts)}
            at = c.randrange(len(parts))
            damage = c.randrange(4)
            if damage == 0:
                del parts[at]
            elif damage == 1:
                parts[at], parts[-1] = parts[-1], parts[at]
            elif damage == 2:
                parts.append(b"left over")
            else:
                parts[at] = self.maker.bent(parts[at])
            return dumped(row), parts
        return self.maker.junk(), [self.maker.junk()]

    def _field(self) -> str:
        return self.chance.choice(snapshots.Snapshot.__struct_fields__)

    def fitting(self, raw: bytes) -> tuple[bytes, list[bytes]]:
        """The snapshot of this pickle, whatever it is."""
        c = self.chance
        payload = zlib.compress(raw, 1)
        if c.randrange(15) == 0:
            payload = c.choice((payload[:-1], payload + b"x", self.maker.bent(payload) or b"x", BOMB))
        chunks = [payload[at : at + 1_000] for at in range(0, len(payload), 1_000)]
        row = {
            **msgspec.json.decode(self.manifest),
            "n_chunks": len(chunks),
            "bytes": max(1, len(raw)),
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        return msgspec.json.encode(row), chunks

    def monitors(self) -> bytes:
        """The monitors' pickle after an accident."""
        return self._raw(Watch(self.pipeline).dump())

    def _raw(self, raw: bytes) -> bytes:
        """The pickle after an accident, biased towards its steps and numbers."""
        c = self.chance
        for _ in range(c.choice((1, 1, 2, 4))):
            at = c.randrange(len(raw))
            kind = c.randrange(5)
            if kind == 0:
                raw = raw[:at] + bytes([raw[at] ^ (1 << c.randrange(8))]) + raw[at + 1 :]
            elif kind == 1:
                raw = raw[:at] + bytes([c.choice(OPCODES)]) + raw[at + 1 :]
            elif kind == 2:
                other = c.randrange(len(raw))
                raw = raw[:at] + raw[other : other + c.randrange(1, 40)] + raw[at:]
            elif kind == 3:
                raw = raw[:at] + raw[at + c.randrange(1, 10) :] or b"."
            else:
                raw = raw[:at] + c.randbytes(c.randrange(1, 9)) + raw[at:]
        return raw

    def _program(self) -> bytes:
        """Steps at random, with names that are and are not admitted."""
        c = self.chance
        steps = []
        for _ in range(c.randrange(1, 40)):
            kind = c.randrange(6)
            if kind == 0:
                module, name = c.choice(NAMES)
                steps.append(pickle.GLOBAL + f"{module}\n{name}\n".encode())
            elif kind == 1:
                steps.append(pickle.BININT1 + bytes([c.randrange(256)]))
            elif kind == 2:
                text = c.choice(("a", "__class__", "__dict__", "x" * 20)).encode()
                steps.append(pickle.SHORT_BINUNICODE + bytes([len(text)]) + text)
            elif kind == 3:
                steps.append(pickle.LONG1 + bytes([8]) + c.randbytes(8))
            else:
                steps.append(bytes([c.choice(OPCODES)]))
        return pickle.PROTO + b"\x05" + b"".join(steps) + b"."


OPCODES = [
    value[0] for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes) and len(value) == 1
]
BOMB = zlib.compress(bytes(10**7))
NAMES = (
    ("os", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("builtins", "bytearray"), ("builtins", "range"),
    ("numpy", "ndarray"), ("numpy._core.multiarray", "_reconstruct"), ("collections", "deque"), ("random", "Random"),
    ("river.linear_model", "LogisticRegression"), ("river.drift", "ADWIN"), ("river.stats", "Var"), ("numpy", "dtype"),
    ("functools", "partial"), ("learning.pickles", "_unpacked"), ("river.sketch", "Histogram"), ("copy", "deepcopy"),
)  # fmt: skip


def try_snapshot(pipeline: Pipeline, manifest: bytes, chunks: Sequence[bytes]) -> str:
    """What became of a snapshot: the kind of its refusal, or "loaded". Raises Broken for anything else."""
    started = time.process_time()
    try:
        learner = snapshots.load(manifest, chunks, pipeline)
    except SnapshotError as error:
        return error.kind
    except BaseException as error:
        raise Broken(f"the snapshot raised {error!r}") from error  # noqa: EM102
    finally:
        took = time.process_time() - started
        hold(took < SLOWEST, f"the snapshot took {took:.1f} s to be refused")
    try:  # somebody who may write snapshots may change a model; what comes of it is a model's error
        learner.predict([0.5] * len(pipeline.feature_set.names))
        learner.state()
    except ModelError:
        return "loaded, raises"
    except BaseException as error:
        raise Broken(f"the model of a snapshot raised {error!r}") from error  # noqa: EM102
    return "loaded"


def try_watch(data: bytes) -> None:
    """Monitors of a changelog that is damaged: read, or refused as a pickle."""
    started = time.process_time()
    with suppress(pickle.UnpicklingError):
        pickles.loads(data)
    hold(time.process_time() - started < SLOWEST, "reading monitors took too long")


# -- one life, and what is said of it


class Figures(msgspec.Struct):
    """What was run."""

    inputs: Counter[str] = msgspec.field(default_factory=Counter)
    became: Counter[str] = msgspec.field(default_factory=Counter)
    slowest: float = 0.0

    @property
    def total(self) -> int:
        """How many inputs."""
        return self.inputs.total()

    def add(self, worker: Worker, fed: Sequence[Batch]) -> None:
        """A life."""
        for kind, parts in fed:
            if kind != "lessons":
                self.inputs[kind] += len(parts)
                continue
            for part in parts:
                self.inputs["control" if b'"control"' in (part[1] or b"") else "training log"] += 1
        counted = (
            "predictions_total",
            "duplicate_events_total",
            "labels_total",
            "training_examples_total",
            "model_errors_total",
        )
        for name in counted:
            self.became[name] += worker.metrics.counts[name]
        for (name, labels), value in worker.metrics.values.items():
            if name == "dead_letters_total":
                self.became[f"dead letter: {labels[0][1]}"] += int(value)
        self.slowest = max(self.slowest, worker.slowest)


def memory() -> int:
    """Most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def failing(pipeline: Pipeline, fed: Sequence[Batch]) -> str | None:
    """The invariant that this life breaks."""
    try:
        asyncio.run(live(pipeline, fed))
    except Broken as error:
        return str(error)
    return None


def smallest(fails: Callable[[list[Batch]], bool], fed: Sequence[Batch], patience: float = 60.0) -> list[Batch]:
    """The life with everything left out that it fails without."""
    best, end = [(kind, list(parts)) for kind, parts in fed], time.monotonic() + patience
    size = len(best)
    while size:  # batches first
        at = 0
        while at < len(best) and time.monotonic() < end:
            less = best[:at] + best[at + size :]
            if less and fails(less):
                best = less
            else:
                at += size
        size //= 2
    for number in range(len(best)):  # then records
        kind, parts = best[number]
        size = len(parts)
        while size:
            at = 0
            while at < len(parts) and time.monotonic() < end:
                less = parts[:at] + parts[at + size :]
                if less and fails([*best[:number], (kind, less), *best[number + 1 :]]):
                    parts = less
                    best[number] = (kind, parts)
                else:
                    at += size
            size //= 2
    return best
