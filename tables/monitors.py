"""Monitors: quality and drift detectors, the survey of the data, incidents; one entry each, kept by the log's owner."""

import logging
import pickle
from collections.abc import Mapping
from typing import Protocol

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


KINDS: Mapping[str, type[Watch] | type[Survey] | type[LossAlarm] | type[Incidents]] = {
    WATCH: Watch,
    SURVEY: Survey,
    LOSSES: LossAlarm,
    INCIDENTS: Incidents,
}


def create(app: App, pipeline: Pipeline) -> StateTable[Monitor]:
    """The table, of one partition, as the training log has."""

    def load(key: str, data: bytes) -> Monitor:
        kind = KINDS[key]
        try:
            return kind.load(pipeline, data)
        except (ValueError, pickle.UnpicklingError) as error:
            # They are a report about the log, not the model; losing their past must not keep a worker down.
            log.error("the %s cannot be read (%s); it starts anew from here", key, error)  # noqa: TRY400
            return kind(pipeline)

    return StateTable(app, name=NAME, partitions=1, load=load, dump=lambda monitor: monitor.dump())


def watch(unit: Unit, pipeline: Pipeline) -> Watch:
    """The watch of the log's unit. Whoever changes it puts it back under its name, so that it is saved."""
    found = unit.state[NAME].get(WATCH)
    return Watch(pipeline) if found is None else found


def survey(unit: Unit, pipeline: Pipeline) -> Survey:
    """The survey."""
    found = unit.state[NAME].get(SURVEY)
    return Survey(pipeline) if found is None else found


def losses(unit: Unit, pipeline: Pipeline) -> LossAlarm:
    """The loss alarm."""
    found = unit.state[NAME].get(LOSSES)
    return LossAlarm(pipeline) if found is None else found


def incidents(unit: Unit, pipeline: Pipeline) -> Incidents:
    """The incidents."""
    found = unit.state[NAME].get(INCIDENTS)
    return Incidents(pipeline) if found is None else found
