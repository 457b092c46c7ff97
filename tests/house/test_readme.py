"""What the README says works: its commands are run, its pipeline is loaded, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.loading import load_pipeline

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(240)
def test_every_command_of_the_readme_runs(kafka: str, tmp_path: Path) -> None:
    scripts = fences("sh")
    assert len(scripts) == 2
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HEADWATER_BROKER": kafka, "HEADWATER_WEB_PORT": "0"}
    script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(scripts)
    script = script.replace("headwater worker &", f"headwater worker >{tmp_path}/worker.log 2>&1 &")
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0.887200" in done.stdout
    assert "wrote 2,000 events" in done.stdout
    assert done.stdout.count('"prediction"') == 3
    assert "problem" not in done.stdout


def test_the_example_pipeline_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = fences("python")
    (tmp_path / "clicks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    pipeline = load_pipeline("clicks:clicks")
    assert pipeline.task == "binary"
    assert "one_hot(device=phone)" in pipeline.feature_set.names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_room_is_on_the_map() -> None:
    rooms = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {room for room in rooms if f"| `{room}/` |" in README} == rooms
