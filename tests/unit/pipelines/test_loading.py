"""Pipelines by name: the built-in ones, the user's own, and what is said where there is none."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.definition import DefinitionError, Pipeline
from pipelines.loading import BUILT_IN, load_pipeline

MINE = """
from datetime import datetime, timedelta
from river import linear_model
from features import field
from pipelines.definition import Event, Label, Pipeline

class Click(Event, topic="clicks", key="user", time="at"):
    user: str
    at: datetime
    price: float

class Sale(Label, topic="sales", key="user", id="user", time="at"):
    user: str
    at: datetime
    outcome: bool

mine = Pipeline(name="mine", event=Click, label=Sale, horizon=timedelta(days=1), features=[field("price")],
                model=linear_model.LogisticRegression)
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory that no import path holds; what is imported from it is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def refusal(name: str) -> str:
    """The message of the refusal."""
    with pytest.raises(DefinitionError) as caught:
        load_pipeline(name)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_pipeline_goes_by_its_name(name: str) -> None:
    pipeline = load_pipeline(name)
    assert isinstance(pipeline, Pipeline)
    assert pipeline.name == name
    assert pipeline.source is not None
    assert pipeline.description


def test_every_pipeline_of_the_room_has_its_own_name() -> None:
    assert {load_pipeline(name).name for name in BUILT_IN} == set(BUILT_IN)


def test_users_module_is_found_where_the_command_is_run(folder: Path) -> None:
    (folder / "hw_shop.py").write_text(MINE)
    assert load_pipeline("hw_shop:mine").name == "mine"


def test_users_package_is_found_too(folder: Path) -> None:
    (folder / "hw_shops").mkdir()
    (folder / "hw_shops" / "paris.py").write_text(MINE)
    assert load_pipeline("hw_shops.paris:mine") is load_pipeline("hw_shops.paris:mine")


def test_users_module_does_not_hide_an_installed_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (folder / "colorsys.py").write_text(MINE)
    assert "module colorsys has no 'mine'" in refusal("colorsys:mine")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flihgts", ("'flihgts'", "did you mean 'flights'?", "package.module:name")),
        ("nonsense", ("'nonsense'", "known are card_fraud, elec2, elec2_alma,")),
        ("", ("''", "package.module:name")),
        ("hw_nowhere:mine", ("'hw_nowhere'", "run in its folder or install it")),
        ("pipelines.nowhere:mine", ("'pipelines.nowhere'", "install it")),
        ("pipelines.flights:flihgts", ("pipelines.flights", "'flihgts'", "did you mean 'flights'?")),
        ("json:dumps", ("a function", "expected a Pipeline")),
        ("json:mine", ("json", "no pipeline at all")),
        ("json:", ("'json:'", "package.module:name")),
        (":mine", ("':mine'", "package.module:name")),
        ("../shop:mine", ("'../shop:mine'", "package.module:name")),
        ("json:a:b", ("'json:a:b'", "package.module:name")),
    ],
)
def test_name_of_nothing_is_refused_with_the_remedy(name: str, words: tuple[str, ...]) -> None:
    message = refusal(name)
    assert [word for word in words if word not in message] == []


def test_module_that_misses_another_one_says_so_itself(folder: Path) -> None:
    (folder / "hw_broken.py").write_text("import hw_missing_dependency")
    with pytest.raises(ModuleNotFoundError, match="hw_missing_dependency"):
        load_pipeline("hw_broken:mine")


def test_mistake_in_the_users_definition_passes_through(folder: Path) -> None:
    (folder / "hw_wrong.py").write_text(MINE.replace('field("price")', 'field("prise")'))
    assert "prise" in refusal("hw_wrong:mine")
