"""Monitors: quality measures and drift detectors, one entry, kept by the owner of the training log."""

import logging
import pickle

from faust import App

from learning.watch import Watch
from pipelines.definition import Pipeline
from streaming.tables import StateTable

NAME = "monitors"
KEY = "watch"

log = logging.getLogger(__name__)


def create(app: App, pipeline: Pipeline) -> StateTable[Watch]:
    """The table, of one partition, as the training log has."""

    def load(key: str, data: bytes) -> Watch:
        try:
            return Watch.load(pipeline, data)
        except (ValueError, pickle.UnpicklingError) as error:
            # Measures are a report about the log, not the model; losing their past must not keep a worker down.
            log.error("monitors cannot be read (%s); quality and drift start anew from here", error)  # noqa: TRY400
            return Watch(pipeline)

    return StateTable(app, name=NAME, partitions=1, load=load, dump=Watch.dump)
