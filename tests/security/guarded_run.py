"""The invented flights of the command line's tests, with drift that is surely found, under the name of any test run.

Loaded by workers and by commands that run in the tests' own process, as `tests.security.guarded_run:<run>`.
"""

from functools import cache, partial

from river import drift

from features import field, hour_of_day, mean
from pipelines.definition import Pipeline, on_loss
from tests.integration.cli_run import history
from tests.integration.flights_run import named


@cache
def guarded(run: str) -> Pipeline:
    """The pipeline under the name of one test run."""
    return named(
        run,
        source=history,
        features=[field("departure_delay"), hour_of_day("departed_at"), mean("departure_delay", "3h")],
        baseline_examples=300,
        drift=[on_loss(partial(drift.PageHinkley, min_instances=30, threshold=1.0))],
    )


def __getattr__(name: str) -> Pipeline:
    """The pipeline of a run, which begins with an r and is all digits after it."""
    if len(name) == 9 and name[0] == "r" and all(digit in "0123456789abcdef" for digit in name[1:]):
        return guarded(name)
    message = f"got {name}, expected the name of a run"
    raise AttributeError(message)
