"""Monitors: quality and drift detectors, the survey of the data, incidents; one entry each, kept by the log's owner."""

import logging
import pickle
from collections.abc import Mapping
from typing import Protocol

from faust import App

from learning.incidents import Incidents
from learning.survey import Survey
from learning.watch import Watch
from pipelines.definition import Pipeline
from streaming.tables import StateTable

NAME = "monitors"
WATCH = "watch"
SURVEY = "survey"
INCIDENTS = "incidents"

log = logging.getLogger(__name__)


class Monitor(Protocol):
    """What watches and can be saved."""

    def dump(self) -> bytes:
        """Its whole state."""


KINDS: Mapping[str, type[Watch] | type[Survey] | type[Incidents]] = {
    WATCH: Watch,
    SURVEY: Survey,
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
