"""Errors of the feature room, for people: what was expected, what was got, what to do."""


class FeatureDefinitionError(ValueError):
    """A feature is defined wrongly; raised at start-up, never for an event."""


class FeatureError(Exception):
    """A feature could not be computed for one event. The event's entities were not touched.

    Attributes:
        name: the feature, or the source inside it.
        message: what was got, what was expected.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"feature {name}: {message}")
        self.name = name
        self.message = message
