"""Errors become messages for people, and signals the end of a command."""

import os
import signal

import click
import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from app.people import for_people, interruptible
from app.settings import SettingsError
from streaming.errors import StartupError
from streaming.jars import BrokerError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SettingsError("unknown setting"), "unknown setting"),
        (StartupError("no topic"), "no topic"),
        (BrokerError("no Java"), "no Java"),
        (KafkaConnectionError("gone"), "start one: headwater kafka up"),
        (TopicAuthorizationFailedError("clicks"), "`headwater doctor` says what is wrong"),
    ],
)
def test_known_errors_become_messages(error: Exception, said: str) -> None:
    with pytest.raises(click.ClickException, match=said), for_people():
        raise error


def test_mistakes_of_the_program_stay_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError), for_people():
        raise ZeroDivisionError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_interrupt_as_ctrl_c_does(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests by nohup has one ignored
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
