"""Errors of the engine, for people: what was expected, what was got, what to do.

EngineError
├── StartupError       the worker cannot start: broker, topics or definition
├── CheckpointError    the unit's memory may be ahead of the log; the worker must end
├── StoreError         the state on disk cannot be used; nothing is lost, since Kafka has it
└── TooManyDeadLetters the definition is wrong, not the data
"""


class EngineError(Exception):
    """Root of the engine's errors; each ends the worker."""


class StartupError(EngineError):
    """The worker cannot start until somebody does what the message says."""


class CheckpointError(EngineError):
    """A checkpoint failed, so memory may be ahead of the log and is thrown away with the worker."""


class StoreError(EngineError):
    """The folder of the state on disk is in use, damaged, full, or may not be written to."""


class TooManyDeadLetters(EngineError):
    """So large a share of records was unusable that the definition must be wrong."""
