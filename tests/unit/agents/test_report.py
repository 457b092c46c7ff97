"""What the reporter says of itself in metrics."""

from typing import Any

import pytest

from learning.records import Example
from learning.reports import Report
from learning.watch import Watch, by_metric
from tests.doubles import TinyFeatures, tiny_pipeline


@pytest.mark.parametrize("examples", [0, 3, 60])
def test_measures_by_metric_are_those_of_the_watch(examples: int) -> None:
    """The report has all of them, so the watch need not be asked for them again."""
    watch = Watch(tiny_pipeline(window=10))
    for offset in range(examples):
        value, outcome, frozen = (offset % 10) / 10, offset % 3 == 0, 0.5 if offset > 20 else None
        record = Example("a", "k", 0, 77, value, 5, [1.0, 0.0], TinyFeatures.schema, outcome, "label")
        watch.observe(offset, record, frozen)
    report = watch.fill(Report(pipeline="tiny", wall_ms=0))
    found: dict[str, Any] = by_metric(report.quality, report.baselines)
    assert found == watch.report()
    assert any(name.startswith("online_since_frozen_") for name in found) == (examples > 20)
