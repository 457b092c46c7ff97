"""Snapshots: what is saved is what is loaded, and whatever is wrong with one is refused by name."""

import hashlib
import json
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from river import compose, linear_model, preprocessing

from learning import snapshots
from learning.learn import Learner, State, Turn
from learning.records import Control, Example
from learning.snapshots import LAYOUT, Snapshot, SnapshotError, dump, load, read_manifest
from tests.doubles import FixedModel, TinyFeatures, logistic, tiny_pipeline

OLD, NEW = b"the key of last year", b"the key of this year"


def example(number: int) -> Example:
    x = float(number % 7 - 3)
    return Example("a", "k", 0, 1, 0.5, 0, [x, 0.0], TinyFeatures.schema, x > 0, "label")


def taught(pipeline: Any, examples: int = 20) -> Learner:
    learner = Learner(pipeline)
    for offset in range(examples):
        learner.apply(offset * 2, example(offset))  # as in a log of transactions
    return learner


def saved(keys: list[bytes] | None = None, **overrides: Any) -> tuple[bytes, list[bytes]]:
    pipeline = tiny_pipeline(**overrides)
    return dump(taught(pipeline), pipeline, created_ms=1_700_000_000_000, keys=keys or [])


def changed(manifest: bytes, **fields: Any) -> bytes:
    return json.dumps({**json.loads(manifest), **fields}).encode()


def with_payload(manifest: bytes, payload: bytes, **fields: Any) -> tuple[bytes, list[bytes]]:
    return changed(manifest, sha256=hashlib.sha256(payload).hexdigest(), n_chunks=1, **fields), [payload]


def with_pickle(manifest: bytes, raw: bytes) -> tuple[bytes, list[bytes]]:
    return with_payload(manifest, zlib.compress(raw), bytes=len(raw))


def kind_of(manifest: bytes, chunks: list[bytes], keys: list[bytes] | None = None, **overrides: Any) -> str:
    with pytest.raises(SnapshotError) as caught:
        load(manifest, chunks, tiny_pipeline(**overrides), keys or [])
    assert "got" in caught.value.message or "cannot" in caught.value.message
    assert str(caught.value) == caught.value.message
    return caught.value.kind


@pytest.mark.parametrize("keys", [[], [NEW]])
def test_what_is_loaded_is_what_was_saved(keys: list[bytes]) -> None:
    pipeline = tiny_pipeline()
    learner = taught(pipeline)
    again = load(*dump(learner, pipeline, created_ms=5, keys=keys), pipeline, keys)
    for offset in range(38, 60):
        assert (again.version, again.examples, again.frozen_version) == (learner.version, learner.examples, 9)
        for vector in ([1.0, 0.0], [-2.0, 3.0]):
            assert again.predict(vector) == learner.predict(vector)
            assert again.predict_frozen(vector) == learner.predict_frozen(vector)
        for one in (learner, again):
            one.apply(offset, example(offset))


def test_snapshot_before_the_first_example_and_before_the_frozen_copy() -> None:
    pipeline = tiny_pipeline()
    for examples in (0, 3):
        again = load(*dump(taught(pipeline, examples), pipeline, created_ms=5), pipeline)
        assert again.examples == examples
        assert again.frozen is None


def test_snapshot_carries_what_control_records_did() -> None:
    pipeline = tiny_pipeline()
    learner = taught(pipeline)
    learner.take_turn(Turn(40, 4, True), taught(pipeline, 2))
    learner.apply(41, Control("boost", 0, "ann", factor=2.0, examples=7))
    learner.apply(42, Control("freeze", 0, "ann"))
    again = load(*dump(learner, pipeline, created_ms=5), pipeline)
    assert again.turns == learner.turns == (Turn(40, 4, True), Turn(41, None, True), Turn(42, None, False))
    assert again.boost == learner.boost == (7, 0.01)
    assert not again.learning
    assert (again.frozen, again.frozen_version, [since for since, _ in again.past]) == (None, 41, [9])
    vector = [1.0, 0.0]
    assert again.predict_with(again.frozen_at(20), vector) == learner.predict_with(learner.frozen_at(20), vector)


def test_manifest_tells_what_it_is() -> None:
    manifest, chunks = saved([NEW])
    told = read_manifest(manifest)
    assert (told.layout, told.pipeline, told.version, told.examples) == (LAYOUT, "tiny", 39, 20)
    assert (told.schema, told.created_ms, told.n_chunks) == (TinyFeatures.schema, 1_700_000_000_000, len(chunks))
    assert told.river.count(".") == 2
    assert len(told.hmac) == 64
    assert read_manifest(saved()[0]).hmac == ""


def test_same_learner_makes_the_same_snapshot() -> None:
    assert saved([NEW]) == saved([NEW])


def test_large_snapshot_is_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert snapshots.CHUNK < 900_000
    monkeypatch.setattr(snapshots, "CHUNK", 100)
    manifest, chunks = saved()
    assert read_manifest(manifest).n_chunks == len(chunks) > 3
    assert {len(chunk) for chunk in chunks[:-1]} == {100}
    load(manifest, chunks, tiny_pipeline())
    load(manifest, [*chunks, b"of a larger one before"], tiny_pipeline())
    assert kind_of(manifest, chunks[:-1]) == "missing_chunk"
    assert kind_of(manifest, [chunks[1], chunks[0], *chunks[2:]]) == "bad_hash"


@pytest.mark.parametrize("keys", [[OLD, NEW], [NEW, OLD], [OLD]])
def test_any_of_the_keys_will_do(keys: list[bytes]) -> None:
    load(*saved([OLD]), tiny_pipeline(), keys)


def test_first_key_signs() -> None:
    assert saved([OLD, NEW]) == saved([OLD])


def test_signature_is_passed_over_without_a_key() -> None:
    load(*saved([OLD]), tiny_pipeline())


def test_unsigned_is_refused_where_a_key_is_set() -> None:
    assert kind_of(*saved(), keys=[NEW]) == "unsigned"


def test_other_key_is_refused() -> None:
    assert kind_of(*saved([OLD]), keys=[NEW]) == "bad_signature"


@pytest.mark.parametrize("field", [field for field in Snapshot.__struct_fields__ if field != "hmac"])
def test_every_field_is_signed(field: str) -> None:
    manifest, chunks = saved([NEW])
    value = json.loads(manifest)[field]
    other = value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")
    expected = "unreadable" if field in ("layout", "compression") else "bad_signature"
    assert kind_of(changed(manifest, **{field: other}), chunks, [NEW]) == expected


def test_nothing_is_read_before_the_signature_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, chunks = saved([OLD])
    for name in ("_joined", "_decompressed", "_restored"):
        monkeypatch.setattr(snapshots, name, lambda *_: pytest.fail("read"))
    assert kind_of(manifest, chunks, [NEW]) == "bad_signature"
    assert kind_of(changed(manifest, hmac=""), chunks, [NEW]) == "unsigned"


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("other_pipeline", {"name": "another"}),
        ("other_schema", {"feature_set": type("Other", (TinyFeatures,), {"schema": "f" * 16})()}),
        ("other_model", {"model": linear_model.LogisticRegression}),
        ("other_model", {"model": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(l2=0.1)}),
        ("other_model", {"baseline_examples": 6}),
        ("other_model", {"frozen_at": 5}),
    ],
)
def test_snapshot_of_another_fold_is_refused(kind: str, overrides: dict[str, Any]) -> None:
    assert kind_of(*saved(), **overrides) == kind


def test_other_river_is_refused_unless_it_differs_in_the_last_place() -> None:
    manifest, chunks = saved()
    major, minor, _ = read_manifest(manifest).river.split(".")
    load(changed(manifest, river=f"{major}.{minor}.99", python="3.99.0"), chunks, tiny_pipeline())
    assert kind_of(changed(manifest, river=f"{major}.{int(minor) + 1}.0"), chunks) == "incompatible"
    assert kind_of(changed(manifest, river="1"), chunks) == "incompatible"


@pytest.mark.parametrize(
    "fields",
    [
        {"version": -1},
        {"examples": -1},
        {"examples": 40},
        {"created_ms": -1},
        {"n_chunks": 0},
        {"bytes": 0},
        {"bytes": -5},
        {"version": 1.5},
        {"version": "39"},
        {"version": None},
        {"layout": 1},
        {"layout": LAYOUT + 1},
        {"layout": 0},
        {"sha256": "no hash"},
        {"hmac": "no hash"},
        {"compression": "bzip2"},
        {"more": 1},
    ],
    ids=str,
)
def test_manifest_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    manifest, chunks = saved()
    assert kind_of(changed(manifest, **fields), chunks) == "unreadable"


@pytest.mark.parametrize("manifest", [b"", b"{}", b"null", b"[]", b"\xff\xfe", b"[" * 60_000, b" " * 70_000])
def test_manifest_that_is_none_is_refused(manifest: bytes) -> None:
    assert kind_of(manifest, []) == "unreadable"


def test_chunk_that_was_changed_is_refused() -> None:
    manifest, chunks = saved()
    assert kind_of(manifest, [chunks[0][:-1] + b"\0"]) == "bad_hash"
    assert kind_of(manifest, []) == "missing_chunk"


def test_payload_that_cannot_be_decompressed_is_refused() -> None:
    manifest, chunks = saved()
    assert kind_of(*with_payload(manifest, b"no zlib")) == "unreadable"
    assert kind_of(*with_payload(manifest, chunks[0][:-8])) == "unreadable"
    assert kind_of(*with_payload(manifest, chunks[0] + b"more")) == "unreadable"


def test_payload_that_grows_beyond_its_declared_size_is_stopped_there() -> None:
    manifest, _ = saved()
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    assert len(bomb) < 50_000
    assert kind_of(*with_payload(manifest, bomb, bytes=1000)) == "hostile"
    assert kind_of(changed(manifest, bytes=snapshots.LARGEST + 1), [bomb]) == "too_large"


def lacking(attribute: str) -> Any:
    """A model whose optimizer's learning rate has lost an attribute, as in a pickle that was damaged."""
    model = logistic()
    del model["LogisticRegression"].optimizer.lr.__dict__[attribute]
    return model


SOUND: Any = State(logistic(), 39, 20, None, 0)


NO_TURNS: list[Any] = [
    None,
    [],
    (1,),
    ((1, None, True),),
    ((1, None, 1, None),),
    (("1", None, True, None),),
    ((1, True, True, None),),
    ((39, None, True, None),),
    ((-1, None, True, None),),
    ((1, 2, True, None),),
    ((1, -1, True, None),),
    ((1, None, True, 2),),
    ((2, 1, True, None), (2, 1, True, None)),
]


def test_the_state_that_others_differ_from_is_loaded() -> None:
    changed_by_all = SOUND._replace(
        frozen=logistic(),
        frozen_version=9,
        turns=((1, None, True, None), (5, 2, False, None), (7, None, True, 3)),
        past=((1, None), (2, logistic())),
        boost=(3, 0.1),
    )
    for state in (SOUND, changed_by_all):
        learner = load(*with_pickle(saved()[0], pickle.dumps(tuple(state))), tiny_pipeline())
        assert learner.state()[1:3] == state[1:3]


@pytest.mark.parametrize(
    "state",
    [
        None,
        (),
        tuple(SOUND)[:-1],
        SOUND._replace(model=1),
        SOUND._replace(model=linear_model.LogisticRegression()),
        SOUND._replace(model=lacking("learning_rate")),
        SOUND._replace(version=38),
        SOUND._replace(examples=21),
        SOUND._replace(examples=True),
        SOUND._replace(frozen=1),
        SOUND._replace(frozen_version=40),
        SOUND._replace(frozen_version=-1),
        SOUND._replace(frozen_version=None),
        *(SOUND._replace(turns=turns) for turns in NO_TURNS),
        *(
            SOUND._replace(frozen_version=9, past=past)
            for past in (None, (1,), ((1,),), ((9, None),), ((1, 1),), (("1", None),), ((2, None), (1, None)))
        ),
        *(SOUND._replace(boost=boost) for boost in (1, (1,), ("1", 0.1), (1, "0.1"))),
        SOUND._replace(model=lacking("learning_rate"), boost=(1, 0.1)),
    ],
)
def test_payload_that_is_not_what_the_manifest_says_is_refused(state: Any) -> None:
    raw = pickle.dumps(state if state is None else tuple(state))
    assert kind_of(*with_pickle(saved()[0], raw)) == "unreadable"


@pytest.mark.parametrize("raw", [b"no pickle", b"\x80\x05", b"\x80\x05N", pickle.dumps([1])[:-3]])
def test_payload_that_is_no_pickle_is_refused(raw: bytes) -> None:
    assert kind_of(*with_pickle(saved()[0], raw)) == "unreadable"


def test_payload_that_runs_something_is_refused() -> None:
    assert kind_of(*with_pickle(saved()[0], b"cos\nsystem\n(S'true'\ntR.")) == "hostile"


def test_model_that_cannot_be_pickled_is_not_saved() -> None:
    pipeline = tiny_pipeline(model=FixedModel)
    learner = Learner(pipeline)
    learner.model.answer = lambda: None
    with pytest.raises(SnapshotError, match="cannot be pickled"):
        dump(learner, pipeline, created_ms=0)


def test_model_that_is_too_large_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LARGEST", 100)
    with pytest.raises(SnapshotError, match="bound its size") as caught:
        saved()
    assert caught.value.kind == "too_large"


def doubled(x: dict[str, float]) -> dict[str, float]:
    return {name: 2 * value for name, value in x.items()}


def with_a_function() -> Any:
    return compose.FuncTransformer(doubled) | linear_model.LogisticRegression()


@pytest.mark.parametrize("model", [FixedModel, with_a_function])
def test_classes_and_functions_of_the_pipelines_own_module_are_admitted(model: Callable[[], Any]) -> None:
    pipeline = tiny_pipeline(model=model)
    again = load(*dump(taught(pipeline), pipeline, created_ms=5), pipeline)
    assert type(again.model) is type(model())


def test_function_of_another_module_is_refused() -> None:
    mine = tiny_pipeline(model=with_a_function)
    manifest, chunks = dump(taught(mine), mine, created_ms=5)
    theirs = eval("lambda: make()", {"make": with_a_function, "__name__": "elsewhere"})
    assert kind_of(manifest, chunks, model=theirs) == "hostile"


def test_definition_is_the_same_in_every_process() -> None:
    command = (
        "from tests.laws import test_models as laws; from learning import snapshots;"
        "print([snapshots._definition(laws.build(name)) for name in laws.MODELS])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", command],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert runs[0] == runs[1]
    assert len(set(json.loads(runs[0].replace("'", '"')))) > 15


def test_manifest_is_plain_json() -> None:
    assert msgspec.json.decode(saved()[0])["examples"] == 20
