"""A pipeline's features as one object: checks the definitions, names the columns, computes vectors, keeps profiles."""

import datetime
import difflib
import enum
import hashlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from features import compiled
from features.compile import Compiler, Indicators, text_of
from features.definition import Feature, Source, parse_window
from features.errors import FeatureDefinitionError
from features.profile import LAYOUT_VERSION, Profile, entity_index

_SCALARS = ("field", "hour_of_day", "day_of_week", "ratio", "function")
_MAX_BUCKETS = 4096
_LATEST = 1 << 62  # ms; what compiled code can count with


class FeatureSet:
    """The features of one pipeline.

    Args:
        features: what the constructors made.
        fields: the event's fields and their types.
        key: the field that keys events.
        time: the field of event time.

    Attributes:
        names: the columns of the vector, in order.
        schema: 16 hex digits that change when any definition does. Functions count by their name only.
        longest_ms: the longest window; 0 where there is none.
        indicators: the columns that follow from one field each, for whoever counts the field's values anyway.
        copied: where in the vector a field's own number is, for each that is there.
        code: the generated function, to read.

    Raises FeatureDefinitionError, naming the feature and the remedy.
    """

    def __init__(self, features: Sequence[Feature], fields: Mapping[str, Any], key: str, time: str) -> None:
        self._fields = {name: _plain(annotation) for name, annotation in fields.items()}
        self._key = key
        self._time = time
        checked = tuple(self._checked(feature) for feature in features)
        if not checked:
            message = 'got no features, expected at least one, such as field("amount")'
            raise FeatureDefinitionError(message)
        compiler = Compiler(checked, key)
        self.names: tuple[str, ...] = tuple(compiler.names)
        self._check_names()
        self.code: str = compiler.source
        self.schema: str = self._hash(checked)
        self.indicators: tuple[Indicators, ...] = tuple(indicators for _, indicators in compiler.choices)
        self.copied: Mapping[str, int] = compiler.copied
        self.longest_ms: int = max((parse_window(text) for text in _windows(checked)), default=0)
        self._compiler = compiler
        self._compute = compiler.compute
        self._faster: Callable[..., tuple[list[float], bool]] | None = None  # made when first used
        self._layouts = [entity.layout for entity in compiler.entities.values()]

    def compute(
        self, event: Any, key: str, time_ms: int, profiles: MutableMapping[str, Profile]
    ) -> tuple[list[float], bool]:
        """The vector as of the event, and whether it was too late for some window. Updates the event's profiles.

        Compiled or not, as `features.compiled` has chosen, the numbers are the same. Not for several threads at once.
        Raises FeatureError with the profiles untouched, and ValueError for a time before 1970.
        """
        if time_ms < 0:
            message = f"got time {time_ms} ms, expected one after 1970"
            raise ValueError(message)
        if not compiled.chosen().compiled or time_ms > _LATEST:
            return self._compute(event, key, time_ms, profiles)
        if self._faster is None:
            self._faster = self._compiler.faster()
        return self._faster(event, key, time_ms, profiles)

    def new_profile(self, entity: int) -> Profile:
        """The profile of an entity never seen."""
        return self._layouts[entity].new()

    def dump(self, profile: Profile) -> bytes:
        """A profile's versioned binary form: a header, then both arrays, little-endian."""
        return self._layouts[profile.entity].dump(profile)

    def load(self, key: str, data: bytes) -> Profile:
        """The profile of this key that was dumped. Raises ValueError if the features have changed since."""
        index = entity_index(data)
        if index >= len(self._layouts):
            message = (
                f"the profile of {key!r} belongs to entity number {index}, which the pipeline no longer has;"
                " give the pipeline a new name, so that it starts with fresh profiles"
            )
            raise ValueError(message)
        return self._layouts[index].load(data)

    # -- checks

    def _checked(self, feature: Any) -> Feature:
        if not isinstance(feature, Feature):
            message = (
                f"got feature {feature!r}, expected one made by field(), mean(), count() ...;"
                ' a number of the event is field("name")'
            )
            raise FeatureDefinitionError(message)
        try:
            return self._check(feature)
        except FeatureDefinitionError as error:
            message = f"feature {feature.label}: {error}"
            raise FeatureDefinitionError(message) from None

    def _check(self, feature: Feature) -> Feature:
        kind = feature.kind
        if kind in ("one_hot", "hashed", "distinct"):
            self._check_category(feature)
        elif kind in ("hour_of_day", "day_of_week"):
            self._check_moment(str(feature.sources[0]))
        elif kind == "function":
            if not callable(feature.call):
                message = f"got {feature.call!r}, expected a function of the event: function(name, lambda event: ...)"
                raise FeatureDefinitionError(message)
            if not feature.name or not isinstance(feature.name, str):
                message = f"got name {feature.name!r}, expected a text; write function(name, lambda event: ...)"
                raise FeatureDefinitionError(message)
        else:
            for source in feature.sources:
                self._check_number(source)
        if kind == "ewm":
            parse_window(feature.half_life)
        if kind in ("count", "total", "mean", "std", "minimum", "maximum", "distinct"):
            self._check_windows(feature)
        self._check_entity(feature)
        if kind == "one_hot" and not feature.categories:
            return msgspec.structs.replace(feature, categories=self._categories(str(feature.sources[0])))
        return feature

    def _field(self, name: Any) -> Any:
        if name in self._fields:
            return self._fields[name]
        near = difflib.get_close_matches(str(name), self._fields, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"got field {name!r}, expected one of the event's: {', '.join(self._fields)}{hint}"
        raise FeatureDefinitionError(message)

    def _check_number(self, source: Source) -> None:
        if isinstance(source, Feature):
            if source.kind not in _SCALARS:
                message = f"got {source.label} as its source, expected a field, ratio or function of the event"
                raise FeatureDefinitionError(message)
            self._check(source)
            return
        annotation = self._field(source)
        if annotation in (int, float, bool):
            return
        remedy = f'function("{source}", lambda event: ...) makes a number of it'
        if _is_category(annotation):
            remedy = f'one_hot("{source}", ...) or hashed("{source}", 16) makes numbers of it'
        elif annotation is datetime.datetime:
            remedy = f'hour_of_day("{source}") or day_of_week("{source}") makes a number of it'
        message = f"field {source!r} is {_shown(annotation)}, expected a number; {remedy}"
        raise FeatureDefinitionError(message)

    def _check_moment(self, name: str) -> None:
        annotation = self._field(name)
        if annotation not in (datetime.datetime, int):
            message = f"field {name!r} is {_shown(annotation)}, expected a datetime or milliseconds since 1970 as int"
            raise FeatureDefinitionError(message)

    def _check_category(self, feature: Feature) -> None:
        name = feature.sources[0]
        annotation = self._field(name)
        if feature.kind == "hashed" and not (isinstance(feature.buckets, int) and 2 <= feature.buckets <= _MAX_BUCKETS):
            message = f"got {feature.buckets!r} buckets, expected 2 to {_MAX_BUCKETS}"
            raise FeatureDefinitionError(message)
        if feature.kind == "one_hot":
            texts = [text_of(category) for category in feature.categories or self._categories(str(name))]
            twice = sorted({text for text in texts if texts.count(text) > 1})
            if twice:
                message = f"got category {twice[0]!r} twice; list each once"
                raise FeatureDefinitionError(message)
        if (
            annotation not in (str, int, bool, float)
            and not _is_enum(annotation)
            and get_origin(annotation) is not Literal
        ):
            message = f"field {name!r} is {_shown(annotation)}, expected a text, an int, a bool, an Enum or a Literal"
            raise FeatureDefinitionError(message)

    def _categories(self, name: str) -> tuple[Any, ...]:
        annotation = self._field(name)
        if annotation is bool:
            return (False, True)
        if _is_enum(annotation):
            return tuple(annotation)
        if get_origin(annotation) is Literal:
            return get_args(annotation)
        message = (
            f"field {name!r} is {_shown(annotation)}, so its categories are not known;"
            f' list them: one_hot("{name}", ...), or use hashed("{name}", 16)'
        )
        raise FeatureDefinitionError(message)

    @staticmethod
    def _check_windows(feature: Feature) -> None:
        if not feature.windows:
            message = 'got no window, expected at least one, such as "30m"'
            raise FeatureDefinitionError(message)
        for window in feature.windows:
            parse_window(window)

    def _check_entity(self, feature: Feature) -> None:
        for name in feature.by:
            annotation = self._field(name)
            if (
                annotation not in (str, int, bool)
                and not _is_enum(annotation)
                and get_origin(annotation) is not Literal
            ):
                message = (
                    f"its entity field {name!r} is {_shown(annotation)}, expected a text, an int, a bool or an Enum"
                )
                raise FeatureDefinitionError(message)
        if feature.by and self._key not in feature.by and not feature.local:
            message = (
                f"its entity {'+'.join(feature.by)} does not contain the event key {self._key!r}, so each partition"
                f" would see a part of it only; add {self._key!r} to by=, key the events by it, or say local=True if"
                " a view per partition will do"
            )
            raise FeatureDefinitionError(message)

    def _check_names(self) -> None:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            message = f"two features are named {twice[0]!r}; remove one, or give it another name with name="
            raise FeatureDefinitionError(message)

    def _hash(self, features: Sequence[Feature]) -> str:
        text = "\n".join([f"layout {LAYOUT_VERSION}", *self.names, *map(_described, features)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _windows(features: Sequence[Any]) -> Iterator[str]:
    """Every window, those of features that others are made from included."""
    for feature in features:
        if isinstance(feature, Feature):
            yield from feature.windows
            yield from _windows(feature.sources)


def _described(feature: Feature) -> str:
    """The definition as text, without what differs between processes, such as a function's address."""
    sources = [s if isinstance(s, str) else _described(s) for s in feature.sources]
    categories = [text_of(category) for category in feature.categories]
    parts = (
        feature.kind, feature.name, sources, feature.windows, feature.by, feature.including, categories,
        feature.buckets, feature.half_life,
    )  # fmt: skip
    return repr(parts)


def _plain(annotation: Any) -> Any:
    """The type without constraints, and an optional of one type as it stands."""
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        inner = {_plain(a) for a in get_args(annotation)}
        if inner == {int, float}:
            return float
    return annotation


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum)


def _is_category(annotation: Any) -> bool:
    return annotation in (str, int, bool) or _is_enum(annotation) or get_origin(annotation) is Literal


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
