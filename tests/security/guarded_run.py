"""The invented flights of the command line's tests, with drift that is surely found. Loaded by workers."""

from functools import partial

from river import drift

from features import field, hour_of_day, mean
from pipelines.definition import Pipeline, on_loss
from tests.integration.cli_run import history
from tests.integration.flights_run import RUN, named


def guarded(run: str) -> Pipeline:
    """The pipeline under the name of one test run."""
    return named(
        run,
        source=history,
        features=[field("departure_delay"), hour_of_day("departed_at"), mean("departure_delay", "3h")],
        baseline_examples=300,
        drift=[on_loss(partial(drift.PageHinkley, min_instances=30, threshold=1.0))],
    )


pipeline = guarded(RUN)
