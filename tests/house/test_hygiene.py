"""Nothing is committed that only means something on the machine it was written on."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST = 1_000_000

# Brackets around one letter keep a pattern from finding itself.
MACHINE = {
    "a path of one machine": r"(?<![\w.])/(?:wor[k]|roo[t]|home/\w+|User[s]/\w+|tmp/bas[h]\w*|opt/wheel[s])\b",
    "the host of a package registry": r"pyp[i]\.org|pythonhoste[d]|maven\.or[g]|npmj[s]\.|golang\.or[g]",
    "a merge that was not finished": r"^(?:<{7}|>{7}) ",
    "a stop for a debugger": r"\bbreakpoin[t]\(|\bpd[b]\.set_trace",
}


@cache
def committed() -> tuple[Path, ...]:
    """Files that git keeps; skips where this is no checkout."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for name in names.split("\0") if name and (path := ROOT / name).is_file())


def test_committed_files_are_found() -> None:
    """So that no other test here passes by looking at nothing."""
    assert {ROOT / "pyproject.toml", ROOT / "app" / "cli.py"} <= set(committed())


@pytest.mark.parametrize("pattern", MACHINE.values(), ids=MACHINE)
def test_committed_files_are_free_of(pattern: str) -> None:
    """Each place is named, as file:line."""
    found = []
    for path in committed():
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert found == []


def test_lock_files_name_no_place_to_install_from() -> None:
    """Where packages come from is for each machine's own configuration to say; the hashes say which they are."""
    locks = list((ROOT / "requirements").glob("*.txt"))
    assert len(locks) >= 3
    for lock in locks:
        assert (
            re.findall(r"--(?:extra-)?index-url|--find-links|--trusted-host|\w+://| @ ", lock.read_text("utf-8")) == []
        )


def test_committed_files_are_small() -> None:
    """Data sets and jars are fetched, not kept."""
    assert [str(path.relative_to(ROOT)) for path in committed() if path.stat().st_size > LARGEST] == []
