"""The whole worker on a real Kafka behind listeners of each kind, and what is said where a listener turns it away.

The other mechanisms behind the same listeners are in `matrix`, which `make security` runs.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.settings import Settings, SettingsError
from app.worker import prepared
from streaming.errors import StartupError
from tests.chaos.run import ROOT
from tests.security.broker import PASSWORD, SecuredKafka
from tests.security.guarded_run import guarded
from tests.security.runs import Done, assert_clean, worked

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

KINDS = [("SASL", "PLAIN"), ("MUTUAL", "PLAIN"), ("SASLTLS", "SCRAM-SHA-512")]


@pytest.fixture(scope="module")
def done(secured: SecuredKafka, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Done]:
    return asyncio.run(worked(secured, tmp_path_factory.mktemp("logs"), KINDS))


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_whole_worker_behind_a_listener(done: dict[tuple[str, str], Done], kind: tuple[str, str]) -> None:
    assert_clean(done[kind])


# -- turned away


def refused(environment: dict[str, str]) -> str:
    """What a worker with this environment says in place of starting; it must not take long over it."""
    names = {name.removeprefix("HEADWATER_").lower(): value for name, value in environment.items()}
    started = time.monotonic()
    with pytest.raises((StartupError, SettingsError)) as caught:
        asyncio.run(prepared(guarded("nobody"), Settings(**names).engine_config("nobody")))  # type: ignore[arg-type]
    assert time.monotonic() - started < 20
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("listener", "mechanism"), [("SASL", "PLAIN"), ("SASL", "SCRAM-SHA-256"), ("SASLTLS", "SCRAM-SHA-512")]
)
def test_wrong_password_is_said(secured: SecuredKafka, listener: str, mechanism: str) -> None:
    said = refused({**secured.settings(listener, mechanism), "HEADWATER_SASL_PASSWORD": "another-passw0rd"})
    assert f"user 'worker' or the password is not right for {mechanism}" in said
    assert "HEADWATER_SASL_PASSWORD" in said
    assert "another-passw0rd" not in said


def test_unknown_authority_is_said(secured: SecuredKafka) -> None:
    said = refused({**secured.settings("TLS"), "HEADWATER_SSL_CA_FILE": str(secured.stranger.file)})
    assert "not to be trusted" in said
    assert "HEADWATER_SSL_CA_FILE" in said


def test_certificate_of_another_host_is_said(secured: SecuredKafka) -> None:
    address = secured.at("TLS").replace("127.0.0.1", "localhost")
    said = refused({**secured.settings("TLS"), "HEADWATER_BROKER": address})
    assert "its certificate is not for 'localhost'" in said
    assert "HEADWATER_BROKER" in said


@pytest.mark.parametrize("others", ["none", "of a stranger"])
def test_certificate_that_the_broker_wants_is_said(secured: SecuredKafka, others: str) -> None:
    settings = {**secured.settings("TLS"), "HEADWATER_BROKER": secured.at("MUTUAL")}
    if others != "none":
        certificate, key = secured.stranger.issue("somebody")
        settings |= {"HEADWATER_SSL_CERT_FILE": str(certificate), "HEADWATER_SSL_KEY_FILE": str(key)}
    said = refused(settings)
    assert "HEADWATER_SSL_CERT_FILE" in said
    assert "HEADWATER_SSL_KEY_FILE" in said


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("TLS", "PLAINTEXT"),
        ("TLS", "SASL"),
        ("TLS", "SASLTLS"),
        ("SASLTLS", "SASL"),
        ("SASLTLS", "TLS"),
        ("SASL", "PLAINTEXT"),
        ("SASL", "TLS"),
        ("PLAINTEXT", "SASL"),
        ("PLAINTEXT", "TLS"),
    ],
)
def test_listener_of_another_protocol_is_said(secured: SecuredKafka, ours: str, theirs: str) -> None:
    settings = {"HEADWATER_SECURITY_PROTOCOL": "PLAINTEXT"} if ours == "PLAINTEXT" else secured.settings(ours)
    address = secured.kafka.bootstrap if theirs == "PLAINTEXT" else secured.at(theirs)
    said = refused({**settings, "HEADWATER_BROKER": address})
    assert f"HEADWATER_SECURITY_PROTOCOL is {settings['HEADWATER_SECURITY_PROTOCOL']}" in said


def test_mechanism_that_the_listener_does_not_take_is_said(secured: SecuredKafka) -> None:
    settings = {**secured.settings("SASLTLS", "SCRAM-SHA-256"), "HEADWATER_BROKER": secured.at("PLAINONLY")}
    assert "HEADWATER_SASL_MECHANISM=SCRAM-SHA-256" in refused(settings)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"HEADWATER_SSL_KEY_PASSWORD": ""}, "PEM"),
        ({"HEADWATER_SSL_KEY_PASSWORD": "not-the-passw0rd"}, "PEM"),
        ({"HEADWATER_SSL_KEY_FILE": "none.pem"}, "No such file"),
    ],
)
def test_certificate_that_cannot_be_used_is_said(secured: SecuredKafka, changed: dict[str, str], reason: str) -> None:
    """And nobody is asked for the password at the terminal, where a worker would wait for ever."""
    said = refused({**secured.settings("MUTUAL"), **changed})
    assert "HEADWATER_SSL_KEY_FILE" in said
    assert reason in said
    assert "not-the-passw0rd" not in said


def test_worker_that_is_turned_away_ends_and_says_so(secured: SecuredKafka, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("another-passw0rd\n")
    environment = secured.settings("SASLTLS") | {"HEADWATER_SASL_PASSWORD_FILE": str(tmp_path / "password")}
    del environment["HEADWATER_SASL_PASSWORD"]
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "worker"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "HEADWATER_SASL_PASSWORD" in done.stderr
    assert "Traceback" not in done.stderr
    assert "another-passw0rd" not in done.stdout + done.stderr
