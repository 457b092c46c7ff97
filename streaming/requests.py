"""Two requests that aiokafka lacks: topics and groups, described with what this client may do with them.

Field by field as in Kafka's own message definitions, `MetadataRequest.json` and `DescribeGroupsRequest.json`.
"""

from collections.abc import Sequence

from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String


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
