"""Errors of the engine, for people: what was expected, what was got, what to do.

EngineError
├── StartupError       the worker cannot start: broker, topics or definition
├── CheckpointError    the unit's memory may be ahead of the log; the worker must end
└── TooManyDeadLetters the definition is wrong, not the data
"""


class EngineError(Exception):
    """Root of the engine's errors; each ends the worker."""


class StartupError(EngineError):
    """The worker cannot start until somebody does what the message says."""


class CheckpointError(EngineError):
    """A checkpoint failed, so memory may be ahead of the log and is thrown away with the worker."""


class TooManyDeadLetters(EngineError):
    """So large a share of records was unusable that the definition must be wrong."""
