"""Monitors: what the log's owner keeps of quality, losses, the data and incidents; one entry each."""

import logging
import pickle
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from faust import App

from learning.incidents import Incidents
from learning.losses import LossAlarm
from learning.survey import Survey
from learning.watch import Watch
from pipelines.definition import Pipeline
from streaming.tables import StateTable
from streaming.unit import Unit

NAME = "monitors"
WATCH = "watch"
SURVEY = "survey"
LOSSES = "losses"
INCIDENTS = "incidents"

log = logging.getLogger(__name__)


class Monitor(Protocol):
    """What watches and can be saved."""

    def dump(self) -> bytes:
        """Its whole state."""


def create(app: App, pipeline: Pipeline) -> StateTable[Monitor]:
    """The table, of one partition, as the training log has."""
    makers = _makers(pipeline)

    def load(key: str, data: bytes) -> Monitor:
        made: Monitor
        make, load_one = makers[key]
        try:
            made = load_one(zlib.decompress(data))
        except (ValueError, pickle.UnpicklingError, zlib.error) as error:
            # They are a report about the log, not the model; losing their past must not keep a worker down.
            log.error("monitors (%s) cannot be read: %s; they start anew from here", key, error)  # noqa: TRY400
            made = make()
        return made

    return StateTable(app, name=NAME, partitions=1, load=load, dump=_dump)


def _dump(monitor: Monitor) -> bytes:
    # While a backlog is done the survey keeps a month of days open: in plain bytes perhaps more than a broker takes.
    return zlib.compress(monitor.dump(), 1)


def watch(unit: Unit, pipeline: Pipeline) -> Watch:
    """The watch of the log's unit. Whoever changes it puts it back under its name, so that it is saved."""
    found: Watch = _of(unit, pipeline, WATCH)
    return found


def survey(unit: Unit, pipeline: Pipeline) -> Survey:
    """The survey."""
    found: Survey = _of(unit, pipeline, SURVEY)
    return found


def losses(unit: Unit, pipeline: Pipeline) -> LossAlarm:
    """The loss alarm."""
    found: LossAlarm = _of(unit, pipeline, LOSSES)
    return found


def incidents(unit: Unit, pipeline: Pipeline) -> Incidents:
    """The incidents."""
    found: Incidents = _of(unit, pipeline, INCIDENTS)
    return found


def _of(unit: Unit, pipeline: Pipeline, key: str) -> Any:
    found = unit.state[NAME].get(key)
    return _makers(pipeline)[key][0]() if found is None else found


def _makers(pipeline: Pipeline) -> Mapping[str, tuple[Callable[[], Any], Callable[[bytes], Any]]]:
    """How each is made, and how it is made again from what it dumped."""
    budget, cycle_ms = pipeline.budget, pipeline.cycle_ms

    def held(make: Any) -> Any:
        return partial(make, pipeline, budget=budget, cycle_ms=cycle_ms)

    return {
        WATCH: (partial(Watch, pipeline), partial(Watch.load, pipeline)),
        SURVEY: (held(Survey), held(Survey.load)),
        LOSSES: (held(LossAlarm), held(LossAlarm.load)),
        INCIDENTS: (partial(Incidents, pipeline), partial(Incidents.load, pipeline)),
    }
