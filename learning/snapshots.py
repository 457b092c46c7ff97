"""Snapshots: the model at a version as bytes, so that a worker need not fold the whole training log again.

A snapshot is a manifest and chunks. It is a cache and never the truth: whatever is wrong with one, it is refused with a
`SnapshotError`, and the model is folded from the log instead. With keys set, nothing of it is decompressed or
unpickled before its signature is checked; and then it is read by `learning.pickles` all the same.
"""

import hashlib
import hmac
import pickle
import platform
import re
import zlib
from collections import deque
from collections.abc import Sequence
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from learning import pickles
from learning.learn import Learner, State, Turn
from pipelines.models import learning_rate_of

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

LAYOUT = 3
CHUNK = 800_000  # bytes; a record of Kafka is at most a million by default, its key and headers included
LARGEST = 1 << 30  # bytes of a pickle; what a manifest declares beyond it is not believed
_LARGEST_MANIFEST = 1 << 16
_SIGNED = b"headwater snapshot\n"  # so that a signature of anything else made with the same key is none of a manifest
# Most of a large model is random state, which no compressor makes smaller; the fastest level loses nothing on it.
_LEVEL = 1

Kind = Literal[
    "unsigned",
    "bad_signature",
    "bad_hash",
    "missing_chunk",
    "other_pipeline",
    "other_schema",
    "other_model",
    "incompatible",
    "unreadable",
    "hostile",
    "too_large",
]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class SnapshotError(Exception):
    """A snapshot that is not used.

    Attributes:
        kind: what is wrong, for programs.
        message: what was got, what was expected, and what to do.
    """

    def __init__(self, message: str, kind: Kind) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest. Whatever is in it is signed, so a reader knows every field or refuses it.

    Attributes:
        layout: which fields there are, and what the payload is.
        pipeline: name of the pipeline.
        version: the model's version: where to go on in the training log.
        examples: how many examples it has learned.
        schema: hash of the feature definitions.
        model: hash of the model's definition, and of what else decides what the log is folded to.
        river: version of River.
        python: version of Python.
        created_ms: when it was made.
        n_chunks: the payload is that many chunks, one after the other.
        bytes: size of the pickle.
        sha256: hash of the payload.
        compression: how the pickle became the payload.
        hmac: HMAC-SHA256 of the manifest with this field empty; "" without a key.
    """

    layout: Annotated[int, msgspec.Meta(ge=LAYOUT, le=LAYOUT)]
    pipeline: str
    version: _Count
    examples: _Count
    schema: str
    model: str
    river: str
    python: str
    created_ms: _Count
    n_chunks: _Positive
    bytes: _Positive
    sha256: _Hash
    compression: Literal["zlib"]
    hmac: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""


_DECODER = msgspec.json.Decoder(Snapshot)


def dump(
    learner: Learner, pipeline: "Pipeline", *, created_ms: int, keys: Sequence[bytes] = ()
) -> tuple[bytes, list[bytes]]:
    """The manifest, signed with the first key if there is one, and the chunks. Raises `SnapshotError`.

    The learner must not learn meanwhile.
    """
    raw = _pickled(learner.state())
    payload = zlib.compress(raw, _LEVEL)
    chunks = [payload[at : at + CHUNK] for at in range(0, len(payload), CHUNK)]
    manifest = Snapshot(
        layout=LAYOUT,
        pipeline=pipeline.name,
        version=learner.version,
        examples=learner.examples,
        schema=pipeline.feature_set.schema,
        model=_definition(pipeline),
        river=version_of("river"),
        python=platform.python_version(),
        created_ms=created_ms,
        n_chunks=len(chunks),
        bytes=len(raw),
        sha256=hashlib.sha256(payload).hexdigest(),
        compression="zlib",
    )
    if keys:
        manifest = msgspec.structs.replace(manifest, hmac=_signature(manifest, keys[0]))
    return msgspec.json.encode(manifest), chunks


def load(manifest: bytes, chunks: Sequence[bytes], pipeline: "Pipeline", keys: Sequence[bytes] = ()) -> Learner:
    """The learner that was dumped; it predicts and goes on as that one would have. Raises `SnapshotError`.

    With keys, one of them must have signed it; without, a signature is passed over. Chunks beyond those that the
    manifest counts are passed over too: where a large snapshot was overwritten by a small one, some are left.
    """
    snapshot = read_manifest(manifest)
    _check_signature(snapshot, keys)
    _check_fit(snapshot, pipeline)
    payload = _joined(snapshot, chunks)
    return _restored(snapshot, pipeline, _decompressed(snapshot, payload))


def read_manifest(manifest: bytes) -> Snapshot:
    """What a manifest says, of which nothing has been checked. Raises `SnapshotError`."""
    if len(manifest) > _LARGEST_MANIFEST:
        message = f"got a manifest of {len(manifest)} bytes, expected at most {_LARGEST_MANIFEST}; {_FOLD}"
        raise SnapshotError(message, "unreadable")
    try:
        snapshot = _DECODER.decode(manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        message = f"got a manifest that is none: {exc}, expected one of layout {LAYOUT}; {_FOLD}"
        raise SnapshotError(message, "unreadable") from exc
    if snapshot.examples > snapshot.version:
        message = (
            f"got {snapshot.examples} examples at version {snapshot.version}, expected no more examples than offsets;"
            f" {_FOLD}"
        )
        raise SnapshotError(message, "unreadable")
    if snapshot.bytes > LARGEST:
        message = f"got a snapshot of {snapshot.bytes} bytes, expected at most {LARGEST}; {_FOLD}"
        raise SnapshotError(message, "too_large")
    return snapshot


_FOLD = "the model can be rebuilt from the training log"


def _signature(manifest: Snapshot, key: bytes) -> str:
    unsigned = msgspec.structs.replace(manifest, hmac="")
    return hmac.new(key, _SIGNED + msgspec.json.encode(unsigned), hashlib.sha256).hexdigest()


def _check_signature(snapshot: Snapshot, keys: Sequence[bytes]) -> None:
    if not keys:
        return
    if not snapshot.hmac:
        message = f"got a snapshot without signature, expected one, since a key is set; {_FOLD}"
        raise SnapshotError(message, "unsigned")
    if not any(hmac.compare_digest(_signature(snapshot, key), snapshot.hmac) for key in keys):
        message = (
            f"got a snapshot signed with another key or changed since, expected one signed with one of the {len(keys)}"
            f" keys set; add the key that it was signed with, or {_FOLD}"
        )
        raise SnapshotError(message, "bad_signature")


def _check_fit(snapshot: Snapshot, pipeline: "Pipeline") -> None:
    """Refuse the snapshot of another fold than this pipeline's."""
    ours = version_of("river")
    checks: list[tuple[Kind, str, str, str, str]] = [
        ("other_pipeline", "pipeline", snapshot.pipeline, pipeline.name, "is the topic this pipeline's?"),
        (
            "other_schema",
            "feature schema",
            snapshot.schema,
            pipeline.feature_set.schema,
            "features were changed: keep the definitions or give the pipeline a new name",
        ),
        ("incompatible", "River", _minor(snapshot.river), _minor(ours), f"install River {snapshot.river}, or {_FOLD}"),
        ("other_model", "model", snapshot.model, _definition(pipeline), f"its definition was changed; {_FOLD}"),
    ]
    for kind, what, got, expected, remedy in checks:
        if got != expected:
            message = f"got a snapshot of {what} {got[:200]!r}, expected {expected!r}; {remedy}"
            raise SnapshotError(message, kind)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _joined(snapshot: Snapshot, chunks: Sequence[bytes]) -> bytes:
    if len(chunks) < snapshot.n_chunks:
        message = f"got {len(chunks)} chunks, expected {snapshot.n_chunks}; {_FOLD}"
        raise SnapshotError(message, "missing_chunk")
    payload = b"".join(chunks[: snapshot.n_chunks])
    got = hashlib.sha256(payload).hexdigest()
    if not hmac.compare_digest(got, snapshot.sha256):
        message = f"got chunks of hash {got}, expected {snapshot.sha256}: some are of another snapshot; {_FOLD}"
        raise SnapshotError(message, "bad_hash")
    return payload


def _decompressed(snapshot: Snapshot, payload: bytes) -> bytes:
    """The pickle, of exactly the declared size: a few bytes that grow without end are stopped there."""
    reader = zlib.decompressobj()
    try:
        raw = reader.decompress(payload, snapshot.bytes + 1)
    except zlib.error as exc:
        message = f"got chunks that cannot be decompressed: {exc}; {_FOLD}"
        raise SnapshotError(message, "unreadable") from exc
    if len(raw) != snapshot.bytes or not reader.eof or reader.unused_data:
        message = f"got chunks of another size than the {snapshot.bytes} bytes declared; {_FOLD}"
        raise SnapshotError(message, "hostile" if len(raw) > snapshot.bytes else "unreadable")
    return raw


def _pickled(state: State) -> bytes:
    try:
        raw = pickles.dumps(tuple(state))
    except Exception as exc:
        message = f"the model cannot be pickled: {exc}; use named functions of a module in it, not lambdas"
        raise SnapshotError(message, "unreadable") from exc
    if len(raw) > LARGEST:
        message = f"got a model of {len(raw)} bytes, expected at most {LARGEST}; bound its size, such as by max_size"
        raise SnapshotError(message, "too_large")
    return raw


def _restored(snapshot: Snapshot, pipeline: "Pipeline", raw: bytes) -> Learner:
    policy = pickles.models(_own_modules(pipeline))
    try:
        values = pickles.loads(raw, allow=policy)
    except pickles.RefusedError as exc:
        message = f"{exc}; a class or function that the model is made of belongs in the pipeline's own module; {_FOLD}"
        raise SnapshotError(message, "hostile") from exc
    except pickle.UnpicklingError as exc:
        message = f"{exc}; {_FOLD}"
        raise SnapshotError(message, "unreadable") from exc
    state = _checked_state(values, snapshot, type(pipeline.model()))
    try:
        return Learner.restored(pipeline, state)
    except Exception as exc:  # what a model lacks shows only when it is looked into
        message = f"got a model that cannot be used: {exc!r}; {_FOLD}"
        raise SnapshotError(message, "unreadable") from exc


def _checked_state(values: Any, snapshot: Snapshot, kind: type) -> State:
    if type(values) is tuple and len(values) == len(State._fields):
        state = State(*values)
        numbers = (state.version, state.examples, state.frozen_version)
        if (
            all(type(number) is int for number in numbers)
            and numbers[:2] == (snapshot.version, snapshot.examples)
            and 0 <= state.frozen_version <= state.version
            and type(state.model) is kind
            and type(state.frozen) in (kind, type(None))
            and _are_turns(state.turns, state.version)
            and _are_past(state.past, state.frozen_version, kind)
            and _is_boost(state.boost, state.model)
        ):
            return state
    message = f"got a payload that is not the state which its manifest tells of; {_FOLD}"
    raise SnapshotError(message, "unreadable")


def _are_turns(turns: Any, version: int) -> bool:
    """Whether they are what control records at rising offsets before a version can have done."""
    before = -1
    for turn in turns if type(turns) is tuple else (None,):
        if type(turn) is not tuple or len(turn) != len(Turn._fields):
            return False
        offset, to, learning, since = turn
        if type(offset) is not int or type(learning) is not bool:
            return False
        if not before < offset < version or not all(_is_place(place, offset) for place in (to, since)):
            return False
        before = offset
    return True


def _is_place(place: Any, end: int) -> bool:
    """Whether it is none, or from the log's beginning to before what follows this offset."""
    return place is None or (type(place) is int and 0 <= place <= end)


def _is_boost(boost: Any, model: Any) -> bool:
    """Whether it is none, or a number of examples and the learning rate of a model that has one."""
    return boost is None or (
        type(boost) is tuple
        and len(boost) == 2
        and type(boost[0]) is int
        and type(boost[1]) in (int, float)
        and learning_rate_of(model) is not None
    )


def _are_past(past: Any, version: int, kind: type) -> bool:
    """Whether they are frozen copies of rising versions before a version."""
    before = -1
    for pair in past if type(past) is tuple else (None,):
        if type(pair) is not tuple or len(pair) != 2 or type(pair[0]) is not int:
            return False
        if not before < pair[0] < version or type(pair[1]) not in (kind, type(None)):
            return False
        before = pair[0]
    return True


def _own_modules(pipeline: "Pipeline") -> set[str]:
    """Where the pipeline is written: the module of its event, and that of its function for the model."""
    modules = {pipeline.events.struct.__module__}
    if hasattr(pipeline.model, "__code__"):
        modules.add(pipeline.model.__module__)
    return modules


def _definition(pipeline: "Pipeline") -> str:
    """A hash of what decides, beside the log and the features, what the log is folded to."""
    frozen = pipeline.baseline_examples if pipeline.frozen_at is None else f"version {pipeline.frozen_at}"
    text = f"{pipeline.task} {frozen} {_described(pipeline.model())}"
    if pipeline.negatives < 1.0:  # or else the hash is that of snapshots from before there was a choice
        text += f" negatives {pipeline.negatives!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_DEEPEST = 8  # levels of models within models that are looked at


def _described(thing: Any, depth: int = 0) -> str:
    """A text that changes with the parameters of a new model, and is the same in every process."""
    if depth == _DEEPEST or thing is None or isinstance(thing, bool | int | float | str):
        return repr(thing) if depth < _DEEPEST else "..."
    if isinstance(thing, dict):
        inside = [f"{key!r}:{_described(value, depth + 1)}" for key, value in thing.items()]
    elif isinstance(thing, list | tuple | deque):
        inside = [_described(value, depth + 1) for value in thing]
    elif isinstance(thing, set | frozenset):
        inside = sorted(_described(value, depth + 1) for value in thing)
    else:
        inside = []
    if hasattr(thing, "__dict__") and not callable(getattr(thing, "__get__", None)) and not isinstance(thing, type):
        inside += [f"{name}={_described(value, depth + 1)}" for name, value in vars(thing).items()]
    named = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return re.sub(" at 0x[0-9a-fA-F]+", "", f"{named}({','.join(inside)})")
