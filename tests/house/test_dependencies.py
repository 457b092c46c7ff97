"""Every dependency is explained, locked with its hashes, and the same version everywhere."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = {"base.in": "base.txt", "dev.in": "dev.txt", "data.in": "data.txt", "peers.in": "peers.txt"}


def name_of(requirement: str) -> str:
    """Its name as indexes compare it."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, f"no requirement: {requirement!r}"
    return re.sub(r"[._-]+", "-", found[0]).lower()


def requirements(file: str) -> list[str]:
    """The lines of an .in file that name a package."""
    lines = (line.partition("#")[0].strip() for line in (REQUIREMENTS / file).read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def pins(file: str) -> dict[str, str]:
    """Version of each package in a lock file."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (REQUIREMENTS / file).read_text("utf-8"), re.MULTILINE)
    return {name_of(name): version for name, version in found}


def explained(heading: str) -> list[str]:
    """Names in the table under this heading of docs/dependencies.md, each of whose rows says why and which licence."""
    text = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert rows[:2] == [["package", "why", "licence"], ["---"] * 3]
    assert all(len(row) == 3 and all(row) for row in rows[2:])
    return [row[0] for row in rows[2:]]


RUNTIME = PROJECT["project"]["dependencies"]
BUILD = PROJECT["build-system"]["requires"]


@pytest.mark.parametrize(
    ("heading", "wanted"),
    [
        ("Runtime", RUNTIME),
        ("Extra `export`", PROJECT["project"]["optional-dependencies"]["export"]),
        ("Extra `otel`", PROJECT["project"]["optional-dependencies"]["otel"]),
        ("Extra `disk`", PROJECT["project"]["optional-dependencies"]["disk"]),
        ("Extra `fast`", PROJECT["project"]["optional-dependencies"]["fast"]),
        ("Build", BUILD),
        ("Development", requirements("dev.in")),
        ("Peers in the benchmark", requirements("peers.in")),
        ("Demo and tests", requirements("data.in")),
    ],
)
def test_dependency_is_explained_and_nothing_else_is(heading: str, wanted: list[str]) -> None:
    """One that goes takes its line with it; tables are sorted, so that a line is found."""
    names = [name_of(requirement) for requirement in wanted]
    assert explained(heading) == sorted(names)


def test_runtime_lock_is_of_what_the_project_asks_for() -> None:
    """To the letter, since pip-compile reads base.in and everybody else pyproject.toml."""
    assert sorted(requirements("base.in")) == sorted([*RUNTIME, *BUILD])


@pytest.mark.parametrize(("source", "lock"), LOCKS.items())
def test_lock_has_all_that_is_asked_for(source: str, lock: str) -> None:
    """Forgotten `make lock` would show on a clean machine only."""
    assert {name_of(requirement) for requirement in requirements(source)} <= pins(lock).keys()


def test_locks_agree() -> None:
    """Tests run with the versions that the image and the demo run with, and those have nothing else."""
    base, dev = pins("base.txt"), pins("dev.txt")
    assert base.items() <= dev.items()
    assert pins("data.txt").keys() == {name_of(requirement) for requirement in requirements("data.in")}


def test_peers_do_the_same_work_with_the_same_versions() -> None:
    """Else the benchmark would compare two versions of River, say. Where no version is said, nothing is shared."""
    said = dict(line.split("==") for line in requirements("peers.in") if "==" in line)
    assert {"aiokafka", "faust-streaming", "msgspec", "numpy", "river"} == said.keys()
    assert said.items() <= pins("base.txt").items()
    assert said.items() <= pins("peers.txt").items()


@pytest.mark.parametrize("lock", LOCKS.values())
def test_every_locked_package_has_hashes(lock: str) -> None:
    """Without one pip would refuse the file, but on a clean machine only."""
    text = (REQUIREMENTS / lock).read_text("utf-8")
    hashed = re.findall(
        r"^([A-Za-z0-9._-]+)==\S+(?: ; [^\n]+)? \\\n    --hash=sha256:[0-9a-f]{64}\b", text, re.MULTILINE
    )
    assert {name_of(name) for name in hashed} == pins(lock).keys()
