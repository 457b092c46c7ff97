"""The short chaos suite: every scenario once, under one seed. `make chaos` plays them at length."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.__main__ import ROOMS
from tests.chaos.scenario import SCENARIOS, play

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]

SEED = 1
assert ROOMS, "importing them registers their scenarios"


@pytest.mark.parametrize("name", [name for name, one in SCENARIOS.items() if one.short and one.broker is None])
def test_all_that_is_promised_holds_under(name: str, kafka: str, year: list[Any], tmp_path: Path) -> None:
    report = play(SCENARIOS[name], kafka, tmp_path, seed=SEED, size=SCENARIOS[name].short, items=year)
    assert not report.failure, report.failure


@pytest.mark.parametrize("name", [name for name, one in SCENARIOS.items() if one.short and one.broker is not None])
def test_all_that_is_promised_holds_with_a_broker_under(name: str, year: list[Any], tmp_path: Path) -> None:
    report = play(SCENARIOS[name], None, tmp_path, seed=SEED, size=SCENARIOS[name].short, items=year)
    assert not report.failure, report.failure
