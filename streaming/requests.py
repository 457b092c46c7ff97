"""Requests that aiokafka lacks: topics and groups, described with what this client may do with them; ids of topics.

Field by field as in Kafka's own message definitions, `MetadataRequest.json` and `DescribeGroupsRequest.json`.
"""

from collections.abc import Sequence
from io import BytesIO

from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)


class DescribedTopicsV8(Response):  # type: ignore[misc]  # aiokafka ships no types
    """The answer to `DescribeTopicsV8`."""

    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("name", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class DescribeTopicsV8(RequestStruct):  # type: ignore[misc]
    """Metadata version 8, the first that says what the client may do; aiokafka's go up to 5."""

    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = DescribedTopicsV8
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class DescribeTopics(Request[DescribeTopicsV8]):  # type: ignore[misc]
    """Asks for topics by name, and for what this client may do with each."""

    API_KEY = 3

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def build(self, request_struct_class: type[DescribeTopicsV8]) -> DescribeTopicsV8:
        """The request as it is sent."""
        return request_struct_class(self._names, False, False, True)


class DescribeGroupV3(RequestStruct):  # type: ignore[misc]
    """As aiokafka's version 3, which reads the answer as one of version 2."""

    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = DescribeGroupsRequest_v3.SCHEMA


class DescribeGroup(Request[DescribeGroupV3]):  # type: ignore[misc]
    """Asks for one group, and for what this client may do with it."""

    API_KEY = 15

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: type[DescribeGroupV3]) -> DescribeGroupV3:
        """The request as it is sent."""
        return request_struct_class([self._name], True)


class Uuid:
    """Sixteen bytes as they are, which aiokafka has no type for."""

    @staticmethod
    def encode(value: bytes) -> bytes:
        """Bytes for the wire."""
        return value

    @staticmethod
    def decode(data: BytesIO) -> bytes:
        """The next sixteen bytes. Raises ValueError where there are fewer."""
        value = data.read(16)
        if len(value) != 16:
            message = f"got {len(value)} bytes of an id, expected 16"
            raise ValueError(message)
        return value


class TopicIdsV10(Response):  # type: ignore[misc]
    """The answer to `DescribeTopicIdsV10`."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class DescribeTopicIdsV10(RequestStruct):  # type: ignore[misc]
    """Metadata version 10, the first that tells topics apart by an id; of Kafka 2.8."""

    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = TopicIdsV10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class DescribeTopicIds(Request[DescribeTopicIdsV10]):  # type: ignore[misc]
    """Asks for topics by name, and for what tells each from others that had its name."""

    API_KEY = 3

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def build(self, request_struct_class: type[DescribeTopicIdsV10]) -> DescribeTopicIdsV10:
        """The request as it is sent."""
        no_tags: dict[int, bytes] = {}
        topics = [(bytes(16), name, no_tags) for name in self._names]
        return request_struct_class(topics, False, False, False, no_tags)
