"""The choice between compiled loops and Python: what cannot be compiled, or comes out otherwise, is not used."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import loops as app_loops
from app.settings import Settings
from features import FeatureSet, Profile, compiled, count, field, proof, total
from features.compiled import Choice, CompiledError
from features.proof import every_feature
from learning import linear_compiled

TYPES = {"shop": str, "customer": str, "amount": float, "at": int}
COMPILED = pytest.mark.parametrize("loops", ["compiled"], indirect=True)


class Sale:
    """An event."""

    shop, customer, amount = "a", "c", 2.5


@pytest.fixture(autouse=True)
def _choice_as_before() -> Iterator[None]:
    yield
    compiled.choose("off", [], Path())


def missing() -> None:
    message = "No module named 'llvmlite'"
    raise ModuleNotFoundError(message)


def test_numba_is_not_imported_before_it_is_chosen() -> None:
    code = "import sys, app.cli, app.create, learning.fused; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_compiled_unless_asked_for(tmp_path: Path) -> None:
    assert compiled.choose("off", [missing], tmp_path) == compiled.chosen() == Choice(False, "switched off")


def test_what_fails_goes_on_in_python_unless_compiled_loops_must_be(tmp_path: Path) -> None:
    choice = compiled.choose("auto", [missing], tmp_path)
    assert choice == compiled.chosen() == Choice(False, "ModuleNotFoundError: No module named 'llvmlite'")
    with pytest.raises(CompiledError, match="cannot be compiled: ModuleNotFoundError"):
        compiled.choose("on", [missing], tmp_path)
    assert not compiled.chosen().compiled


def test_without_numba_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "available", lambda: False)
    monkeypatch.setattr(linear_compiled, "_compiled", [])
    auto = app_loops.choose(Settings(compiled="auto", data_dir=tmp_path))
    assert app_loops.said(auto) == (
        "hot loops: in Python, numba is not installed; install Headwater's extra [fast], which is numba"
    )
    with pytest.raises(CompiledError, match=r"extra \[fast\]"):
        app_loops.choose(Settings(compiled="on", data_dir=tmp_path))


@COMPILED
def test_choice_is_said(loops: str) -> None:
    assert app_loops.said(compiled.chosen()).startswith("hot loops: compiled by numba ")


def test_linear_loops_that_come_out_otherwise_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_root(state: Any, vectors: Any, outcomes: Any) -> None:
        """As LLVM makes it of a literal exponent: off by a bit, now and then."""
        linear_compiled.learn_rows(state, vectors, outcomes)
        rows = state[linear_compiled._HEAD :].reshape(linear_compiled._ROWS, -1)
        rows[3] = np.sqrt(rows[2])

    def of_rows_off_by_a_bit(state: Any, vectors: Any, said: Any) -> None:
        linear_compiled.predict_rows(state, vectors, said)
        said[7] *= 1 + 2.0**-52

    def in_another_order(state: Any, vectors: Any, outcomes: Any) -> None:
        linear_compiled.learn_rows(state, vectors[::-1], outcomes[::-1])

    one, rows, learn = linear_compiled.predict, linear_compiled.predict_rows, linear_compiled.learn_rows
    monkeypatch.setattr(linear_compiled, "_compiled", [one, rows, learn])
    linear_compiled.prove()
    monkeypatch.setattr(linear_compiled, "_compiled", [one, rows, with_root])
    with pytest.raises(CompiledError, match="gives other numbers"):
        linear_compiled.prove()
    monkeypatch.setattr(linear_compiled, "_compiled", [one, of_rows_off_by_a_bit, learn])
    with pytest.raises(CompiledError, match="says other numbers of many vectors"):
        linear_compiled.prove()
    monkeypatch.setattr(linear_compiled, "_compiled", [one, rows, in_another_order])
    with pytest.raises(CompiledError, match="learns other numbers from many examples"):
        linear_compiled.prove()


@COMPILED
def test_features_that_come_out_otherwise_are_refused(loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from features import kernel

    step = kernel.loop()

    def off_by_a_bit(plan: Any, floats: Any, ints: Any) -> bool:
        late: bool = step(plan, floats, ints)
        floats[plan[kernel.VECTOR] + 3] *= 1 + 2.0**-52
        return late

    monkeypatch.setattr(kernel, "_compiled", [off_by_a_bit])
    with pytest.raises(CompiledError, match="features are other numbers"):
        proof.prove()


@COMPILED
def test_profile_of_another_feature_set_is_refused_and_not_written_to(loops: str) -> None:
    """In Python a wrong index raises; compiled code would write past the end."""
    small = FeatureSet([count("1h")], TYPES, "shop", "at")
    profiles: dict[str, Profile] = {}
    small.compute(Sale(), "a", 1_000, profiles)
    before = small.dump(profiles["a"])
    large = FeatureSet(every_feature("amount", "customer", ()), TYPES, "shop", "at")
    with pytest.raises(ValueError, match="profile of 'a' of another feature set"):
        large.compute(Sale(), "a", 2_000, profiles)
    assert small.dump(profiles["a"]) == before


@COMPILED
def test_times_beyond_what_compiled_code_counts_with_are_pythons(loops: str) -> None:
    features = FeatureSet([total("amount", "1h")], TYPES, "shop", "at")
    profiles: dict[str, Profile] = {}
    for at in (1_000, (1 << 63) + 5, (1 << 63) + 6):
        vector, late = features.compute(Sale(), "a", at, profiles)
    assert (vector, late, profiles["a"].ints[1]) == ([2.5], False, (1 << 63) + 6)


@COMPILED
def test_features_of_the_event_alone_need_no_compiled_code(loops: str) -> None:
    features = FeatureSet([field("amount")], TYPES, "shop", "at")
    assert features.compute(Sale(), "a", 1_000, {}) == ([2.5], False)


@COMPILED
def test_cache_that_others_can_write_to_is_not_used(
    loops: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in it is executed."""
    monkeypatch.setattr(linear_compiled, "_compiled", [])
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    assert compiled.choose("on", [linear_compiled.prove], cache).compiled
    assert list(cache.iterdir()) == []
    cache.chmod(0o700)
    monkeypatch.setattr(linear_compiled, "_compiled", [])
    assert compiled.choose("on", [linear_compiled.prove], cache).compiled
    assert len(list(cache.iterdir())) == 1


@COMPILED
def test_cache_that_cannot_be_written_is_done_without(
    loops: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_compiled, "_compiled", [])
    file = tmp_path / "file"
    file.write_text("no folder", "utf-8")
    assert compiled.choose("on", [linear_compiled.prove], file / "cache").compiled
    assert file.read_text("utf-8") == "no folder"
