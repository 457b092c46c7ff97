"""What a pipeline reads: typed events and labels, and for each topic how to find key, id and time in a record.

`pipelines.definition` builds a `Stream` for both and offers `Event` and `Label` to whoever writes a pipeline.
"""

import re
import types
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

import msgspec

from pipelines.errors import DefinitionError, nearest

OTHER_ENTITY = "\x1f"  # profiles of entities other than the key are kept under names that begin so
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_OFFSET = EPOCH.replace(tzinfo=None)  # to give each time one would take three times as long
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OPTIONS = (
    *("topic", "key", "id", "time", "tag", "tag_field", "rename", "omit_defaults", "forbid_unknown_fields"),
    *("frozen", "kw_only", "eq", "order", "repr_omit_defaults", "gc", "weakref", "dict", "cache_hash"),
)
_IDENTIFIERS = (str, int, bool, UUID)
_TIMES = (frozenset({datetime}), frozenset({int}))
_SAYS = "a str, an int, a bool, a UUID, or a Literal or Enum of one of them"


class Address(NamedTuple):
    """Where a message comes from and which of its fields say what it is; "" where it was not said."""

    topic: str = ""
    key: str = ""
    id: str = ""
    time: str = ""


class _MessageType(msgspec.StructMeta):
    """Takes `topic`, `key`, `id` and `time` out of the class statement; a subclass has its base's unless it says so."""

    def __new__(  # noqa: PLR0917  # the signature of a metaclass
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        topic: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002  # the word of the class statement
        time: str | None = None,
        **options: Any,
    ) -> Any:
        """Make the class. Raises DefinitionError."""
        for option, value in options.items():
            if option not in _OPTIONS:
                message = f"{name}: unknown class option {option}={value!r}; {nearest(option, _OPTIONS)}"
                raise DefinitionError(message)
        for option in ("frozen", "kw_only"):
            if not options.setdefault(option, True):
                message = f"{name}: got {option}=False, expected True, as messages are shared and evolve; leave it out"
                raise DefinitionError(message)
        inherited: Address = next((vars(base)["__address__"] for base in bases if isinstance(base, cls)), Address())
        given = {"topic": topic, "key": key, "id": id, "time": time}
        for option, value in given.items():
            if value is not None and not isinstance(value, str):
                message = f"{name}: got {option}={value!r}, expected a str; write {option}='...'"
                raise DefinitionError(message)
        said = {option: value for option, value in given.items() if value is not None}
        namespace["__address__"] = inherited._replace(**said)
        return super().__new__(cls, name, bases, namespace, **options)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, metaclass=_MessageType, frozen=True, kw_only=True):
    """What `Event` and `Label` have in common: a JSON object on a topic."""

    __address__: ClassVar[Address]


class Event(Message):
    """Something happened. Subclass it with the topic it is read from and the fields that say what it is.

    `class Departure(Event, topic="departures", key="origin", id="flight_id", time="departed_at")`: `key` is the
    entity, by which the topic is partitioned and profiles are kept; `time` is when it happened, a datetime or an
    int of milliseconds since 1970 UTC; `id` may be left out, then the record's place in its topic is the id.
    A datetime without offset counts as UTC.
    """


class Label(Message):
    """What came of an event. Its `key` and `id` are the event's; its `time` is when the outcome was known.

    Every label has an `outcome`: a field, or a property with a return annotation, of type bool, float or str.
    """


class Stream:
    """How to read and write one topic of a pipeline.

    Attributes:
        struct: the type of its messages.
        topic: the topic.
        key: name of the field that is the key.
        id: name of the field that is the id; None where events have none.
        time: name of the field that is the time.
        decode: bytes of JSON to a message. Raises `msgspec.DecodeError`, also for numbers that are not finite.
        encode: a message to bytes of JSON.
    """

    __slots__ = (
        *("_id_value", "_key_value", "_parts", "_time_value"),
        *("decode", "encode", "id", "key", "struct", "time", "topic"),
    )

    def __init__(self, struct: type[Message]) -> None:
        address = struct.__address__
        _check_topic(struct, address.topic)
        hints = annotations_of(struct)
        set_ = super().__setattr__
        set_("struct", struct)
        set_("topic", address.topic)
        set_("key", _field(struct, hints, "key", address.key))
        set_("id", _field(struct, hints, "id", address.id) if address.id or issubclass(struct, Label) else None)
        set_("time", _field(struct, hints, "time", address.time))
        self._check_types(hints)
        set_("decode", _decoder(struct))
        set_("encode", msgspec.json.Encoder().encode)
        set_("_key_value", attrgetter(self.key))
        set_("_id_value", attrgetter(self.id) if self.id else None)
        set_("_time_value", attrgetter(self.time))
        set_("_parts", attrgetter(self.key, self.id or self.key, self.time))

    struct: type[Message]
    topic: str
    key: str
    id: str | None
    time: str
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    _key_value: Callable[[Any], Any]
    _id_value: Callable[[Any], Any] | None
    _time_value: Callable[[Any], Any]
    _parts: Callable[[Any], tuple[Any, ...]]

    def __setattr__(self, name: str, value: object) -> None:
        message = f"a Stream is frozen; got {name}={value!r}. Say it in the class statement of {self.struct.__name__}"
        raise AttributeError(message)

    def __repr__(self) -> str:
        return f"Stream({self.struct.__name__}, topic={self.topic!r})"

    def parts_of(self, obj: Any) -> tuple[str, str | None, int]:
        """Key, id and time, as `key_of`, `id_of` and `time_of` have them, at the cost of one."""
        key, identity, time = self._parts(obj)
        if type(key) is not str:
            key = text_of(key)
        if not key or key[0] == OTHER_ENTITY:
            raise self._no_entity(key)
        if self.id is None:
            identity = None
        elif type(identity) is not str and identity is not None:
            identity = text_of(identity)
        return key, identity, ms_of(time) if isinstance(time, datetime) else int(time)

    def key_of(self, obj: Any) -> str:
        """The key as text. Raises ValueError where it is empty or could be taken for another entity's."""
        value = self._key_value(obj)
        key = value if type(value) is str else text_of(value)
        if not key or key[0] == OTHER_ENTITY:
            raise self._no_entity(key)
        return key

    def _no_entity(self, key: str) -> ValueError:
        return ValueError(f"field {self.key} is {key!r}, expected the entity that the record is about")

    def id_of(self, obj: Any) -> str | None:
        """The id as text; None where the event has none."""
        if self._id_value is None:
            return None
        value = self._id_value(obj)
        return value if value is None or type(value) is str else text_of(value)

    def time_of(self, obj: Any) -> int:
        """The time in milliseconds since 1970 UTC, what is below a millisecond cut off."""
        value = self._time_value(obj)
        return ms_of(value) if isinstance(value, datetime) else int(value)

    def kinds(self, role: Literal["key", "id"]) -> frozenset[Any]:
        """The types that the key or the id can have, without None."""
        name = self.key if role == "key" else self.id
        return frozenset() if name is None else kinds_of(annotations_of(self.struct)[name]) - {types.NoneType}

    def _check_types(self, hints: dict[str, Any]) -> None:
        place = self.struct.__name__
        for role, name in (("key", self.key), ("id", self.id)):
            if name is None:
                continue
            kinds = kinds_of(hints[name])
            if role == "id" and issubclass(self.struct, Event):
                kinds -= {types.NoneType}  # an event without id has its place in the topic as one
            if len(kinds) != 1 or not kinds <= set(_IDENTIFIERS):
                got = shown(hints[name])
                message = f"{place}.{name}: got {role} of type {got}, expected {_SAYS}; change its annotation"
                raise DefinitionError(message)
        if kinds_of(hints[self.time]) not in _TIMES:
            message = (
                f"{place}.{self.time}: got time of type {shown(hints[self.time])}, expected datetime, or int for"
                " milliseconds since 1970 UTC; change its annotation"
            )
            raise DefinitionError(message)


def ms_of(moment: datetime) -> int:
    """Milliseconds since 1970 UTC, in whole numbers throughout; without offset it counts as UTC.

    >>> ms_of(datetime(2013, 1, 1, 5, 15)), ms_of(datetime(1969, 12, 31, 23, 59, 59, 999_999))
    (1357017300000, -1)
    """
    since = moment - (_EPOCH_WITHOUT_OFFSET if moment.tzinfo is None else EPOCH)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def text_of(value: Any) -> str:
    """A key or id as text: an Enum by its value, a bool as JSON has it.

    >>> text_of(7), text_of(True), text_of("a")
    ('7', 'true', 'a')
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def kinds_of(annotation: Any) -> frozenset[Any]:
    """The plain types that an annotation admits.

    >>> sorted(kind.__name__ for kind in kinds_of(Annotated[Literal["a", "b"], "note"] | None))
    ['NoneType', 'str']
    """
    if hasattr(annotation, "__supertype__"):  # NewType
        return kinds_of(annotation.__supertype__)
    origin = get_origin(annotation)
    if origin is Annotated:
        return kinds_of(get_args(annotation)[0])
    if origin is Literal:
        return frozenset(type(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return frozenset().union(*map(kinds_of, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return frozenset(type(member.value) for member in annotation)
    return frozenset({annotation})


def shown(annotation: Any) -> str:
    """An annotation as people write it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def annotations_of(struct: type[Message]) -> dict[str, Any]:
    """Annotation of every field. Raises DefinitionError where one names something unknown."""
    try:
        hints = get_type_hints(struct, include_extras=True)
    except NameError as error:
        message = f"{struct.__name__}: an annotation cannot be resolved: {error}; import it at the top of the module"
        raise DefinitionError(message) from error
    return {name: hints[name] for name in struct.__struct_fields__}


def is_topic(name: str) -> bool:
    """Whether Kafka takes it as a topic's name."""
    return _TOPIC.fullmatch(name) is not None and name not in (".", "..")


def _check_topic(struct: type[Message], topic: str) -> None:
    place = struct.__name__
    if not topic:
        message = f"{place}: got no topic, expected the topic it is read from; write class {place}(..., topic='...')"
        raise DefinitionError(message)
    if not is_topic(topic):
        message = f"{place}: got topic {topic!r}, expected 1 to 249 of A-Z a-z 0-9 . _ - as Kafka has it; rename it"
        raise DefinitionError(message)


def _field(struct: type[Message], hints: dict[str, Any], role: str, name: str) -> str:
    place = struct.__name__
    if not name:
        message = f"{place}: got no {role}, expected the name of a field; write class {place}(..., {role}='...')"
        raise DefinitionError(message)
    if name not in hints:
        message = f"{place}: got {role}={name!r}, expected the name of a field; {nearest(name, hints)}"
        raise DefinitionError(message)
    return name


def _decoder(struct: type[Message]) -> Callable[[bytes], Any]:
    try:
        msgspec.json.schema(struct)  # refuses what the documentation of its topic could not show
        return msgspec.json.Decoder(struct).decode
    except TypeError as error:
        message = f"{struct.__name__}: JSON cannot hold one of its fields: {error}; use a type that msgspec knows"
        raise DefinitionError(message) from error
