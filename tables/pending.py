"""Pending labels: predictions that wait for their outcome, and outcomes that wait for their prediction.

Values are the bytes of `learning.label`, which reads and writes them.
"""

from faust import App

from streaming.tables import StateTable

NAME = "pending"


def create(app: App, partitions: int) -> StateTable[bytes]:
    """The table, partitioned as the events are."""
    return StateTable(app, name=NAME, partitions=partitions, load=lambda _, data: data, dump=bytes)
