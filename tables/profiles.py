"""Profiles: the windowed state of every entity, read and re-assigned by the score agent."""

from faust import App

from features import Profile
from pipelines.definition import Pipeline
from streaming.tables import OnDisk, StateTable

NAME = "profiles"


def create(app: App, pipeline: Pipeline, partitions: int) -> StateTable[Profile]:
    """The table, partitioned as the events are."""
    features = pipeline.feature_set
    disk = OnDisk(f"profiles {features.schema}")
    return StateTable(app, name=NAME, partitions=partitions, load=features.load, dump=features.dump, disk=disk)
