"""The short chaos suite: every scenario once, under one seed. `make chaos` plays them at length."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.__main__ import ROOMS
from tests.chaos.scenario import SCENARIOS, play

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]

SEED = 1
ON_DISK = 4  # kills; `make chaos` has more, with `--store disk`
assert ROOMS, "importing them registers their scenarios"


@pytest.mark.parametrize("name", [name for name, one in SCENARIOS.items() if one.short and one.broker is None])
def test_all_that_is_promised_holds_under(name: str, kafka: str, year: list[Any], tmp_path: Path) -> None:
    report = play(SCENARIOS[name], kafka, tmp_path, seed=SEED, size=SCENARIOS[name].short, items=year)
    assert not report.failure, report.failure


def test_all_that_is_promised_holds_with_state_on_disk(kafka: str, year: list[Any], tmp_path: Path) -> None:
    """And stores that killed workers left were gone on from, not built anew."""
    report = play(SCENARIOS["kills"], kafka, tmp_path, seed=SEED, size=ON_DISK, items=year, store="disk")
    assert not report.failure, report.failure
    said = "".join(log.read_text(errors="replace") for log in tmp_path.glob("worker-*.log"))
    assert "goes on from offset" in said
    assert "built anew" not in said


@pytest.mark.parametrize("name", [name for name, one in SCENARIOS.items() if one.short and one.broker is not None])
def test_all_that_is_promised_holds_with_a_broker_under(name: str, year: list[Any], tmp_path: Path) -> None:
    report = play(SCENARIOS[name], None, tmp_path, seed=SEED, size=SCENARIOS[name].short, items=year)
    assert not report.failure, report.failure
