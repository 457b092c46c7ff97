"""Pending labels: predictions that wait for their outcome, and outcomes that wait for their prediction.

Values are the bytes of `learning.label`, which reads and writes them.
"""

from faust import App

from learning.label import KINDS, due_of
from streaming.tables import OnDisk, StateTable

NAME = "pending"
SCHEMA = "pending labels 1"  # another number, when what `due_of` makes of the same bytes changes


def create(app: App, partitions: int) -> StateTable[bytes]:
    """The table, partitioned as the events are."""
    disk = OnDisk(SCHEMA, due_of, KINDS, cached=False)
    return StateTable(app, name=NAME, partitions=partitions, load=lambda _, data: data, dump=bytes, disk=disk)
