"""The local Kafka itself: it starts, keeps its data, and ends with its owner."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streaming.brokers import BrokerError, LocalKafka


def test_kafka_fixture_gives_an_address(kafka: str) -> None:
    host, port = kafka.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 5):
        pass
