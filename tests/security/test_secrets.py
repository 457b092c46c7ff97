"""Secrets are marked, everything is run at DEBUG, and no mark is found in anything that was said, shown or written."""

import asyncio
import base64
import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import conn
from aiokafka.protocol.admin import SaslAuthenticateRequest
from click.testing import CliRunner
from pydantic import SecretStr

from agents.snapshots import SnapshotPolicy
from app.cli import main
from app.settings import Settings, SettingsError, known_names, load_settings, secret_names
from streaming.brokers import free_port, without_settings
from streaming.security import Security
from tests.security.broker import PASSWORD, SecuredKafka
from tests.security.pki import KEY_PASSWORD
from tests.security.runs import LABELS, Guarded, flights

TOKEN = "t0ken-of-the-web-server"
SIGNER = "s1gning-key-of-snapshots"
SECRETS = (PASSWORD, KEY_PASSWORD, TOKEN, SIGNER)


def marks() -> Iterator[tuple[str, str]]:
    """Each secret in the forms in which it could be said."""
    for secret in SECRETS:
        data = secret.encode()
        yield secret, secret
        yield secret, urllib.parse.quote(secret, safe="")
        yield secret, data.hex()
        # A part that does not depend on what stands before and after it, at each of three places.
        for skip in range(3):
            yield secret, base64.b64encode(data[skip : skip + (len(data) - skip) // 3 * 3]).decode()


def assert_says_no_secret(where: str, text: str | bytes) -> None:
    said = text if isinstance(text, str) else text.decode(errors="replace")
    for secret, form in marks():
        assert form not in said, f"{where} tells {secret!r}"


def test_a_mark_is_found_in_every_form() -> None:
    """So that nothing passes here by looking for the wrong thing."""
    for secret in SECRETS:
        plain = b"\0worker\0" + secret.encode()
        for said in (repr(plain), plain.hex(), base64.b64encode(plain).decode(), urllib.parse.quote(secret, safe="")):
            with pytest.raises(AssertionError, match="tells"):
                assert_says_no_secret("this", said)


# -- without a broker


def settings_of(**more: Any) -> Settings:
    return Settings(
        security_protocol="SASL_PLAINTEXT",
        sasl_username="worker",
        sasl_password=SecretStr(PASSWORD),
        ssl_key_password=SecretStr(KEY_PASSWORD),
        web_token=SecretStr(TOKEN),
        snapshot_key=SecretStr(SIGNER),
        **more,
    )


def test_no_record_of_ours_shows_a_secret() -> None:
    """EngineConfig once held the password in a plain dictionary, and the policy of snapshots its keys as bytes."""
    settings = settings_of()
    config = settings.engine_config("flights")
    keys = tuple(settings.snapshot_keys())
    policy = SnapshotPolicy(examples=1, seconds=1.0, slots=1, keys=keys)
    assert policy.raw_keys() == [SIGNER.encode()]
    assert config.security.options()["sasl_plain_password"] == PASSWORD
    for made in (settings, config, config.security, policy):
        for shown in (repr(made), str(made), f"{made}"):
            assert_says_no_secret(type(made).__name__, shown)
    assert_says_no_secret("settings as JSON", settings.model_dump_json())


def test_every_secret_setting_is_hidden_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the one whose name has `password` in it. A token may be refused; the others take any text."""
    assert set(secret_names()) == {"sasl_password", "ssl_key_password", "web_token", "snapshot_key"}
    monkeypatch.setenv("HEADWATER_WEB_TOKEN", "with a space: " + TOKEN)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert_says_no_secret("the error", str(caught.value))
    assert "got ***" in str(caught.value)


@pytest.mark.parametrize("name", ["sasl_password", "ssl_key_password", "web_token", "snapshot_key"])
def test_secret_is_read_from_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker and Kubernetes hand them out; the end of the line is no part of it, and its spaces are."""
    setting = f"HEADWATER_{name.upper()}"
    assert f"{setting}_FILE" in known_names()
    (tmp_path / "secret").write_text(f"{TOKEN}\r\n")
    monkeypatch.setenv(f"{setting}_FILE", str(tmp_path / "secret"))
    assert getattr(load_settings(), name).get_secret_value() == TOKEN
    monkeypatch.setenv(setting, TOKEN)
    with pytest.raises(SettingsError, match=rf"{setting} and {setting}_FILE are both set") as caught:
        load_settings()
    assert_says_no_secret("the error", str(caught.value))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"", "empty"), (b"\n", "empty"), (TOKEN.encode() + b"\xff", "UTF-8")],
)
def test_file_that_holds_no_secret_is_refused(
    content: bytes | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("HEADWATER_SASL_PASSWORD_FILE", str(file))
    with pytest.raises(SettingsError, match=rf"HEADWATER_SASL_PASSWORD_FILE: got .*{reason}") as caught:
        load_settings()
    assert str(file) in str(caught.value)
    assert_says_no_secret("the error", str(caught.value))
    assert caught.value.__cause__ is None, "the cause shows what is in the file"


def test_request_that_carries_the_password_is_logged_without_it(caplog: pytest.LogCaptureFixture) -> None:
    """aiokafka logs each request in full at DEBUG, and Faust's worker shows that."""
    settings_of().security().options()
    request = SaslAuthenticateRequest(f"\0worker\0{PASSWORD}".encode()).prepare(
        {SaslAuthenticateRequest.API_KEY: (0, 1)}
    )
    assert PASSWORD in str(request)
    with caplog.at_level("DEBUG"):
        conn.log.debug("Request to %s:%d %d: %s", "broker", 9092, 1, request)
    assert "Request to broker:9092 1: SaslAuthenticate(***)" in caplog.text
    assert_says_no_secret("the log", caplog.text)


def test_security_without_a_password_is_the_default() -> None:
    assert Security().options() == {"security_protocol": "PLAINTEXT"}


# -- with one


@pytest.fixture(scope="module")
def run(secured: SecuredKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A worker with every secret there is, over TLS and with PLAIN, which sends the password as it is."""
    made = Guarded(secured, tmp_path_factory.mktemp("logs"), "SASLTLS", "PLAIN")
    certificate, key = secured.client
    made.settings |= {
        "HEADWATER_LOG_LEVEL": "DEBUG",
        "HEADWATER_SSL_CERT_FILE": str(certificate),
        "HEADWATER_SSL_KEY_FILE": str(key),
        "HEADWATER_SSL_KEY_PASSWORD": KEY_PASSWORD,
        "HEADWATER_WEB_TOKEN": TOKEN,
        "HEADWATER_WEB_PORT": str(free_port()),
        "HEADWATER_SNAPSHOT_KEY": SIGNER,
    }
    yield made
    made.end()


def command_lines() -> bytes:
    """The arguments of every process that can be seen."""
    if sys.platform != "linux":
        return subprocess.run(["ps", "-Aww", "-o", "args"], capture_output=True, check=True).stdout
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_bytes())
        except OSError:  # it has ended
            continue
    return b"\n".join(found)


def listening(pid: int) -> set[int]:
    """The TCP ports that a process listens on (Linux)."""
    links = [_link(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and cells[9] in inodes:
                ports.add(int(cells[1].rpartition(":")[2], 16))
    return ports


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


DONE = [("topics", "check"), ("topics", "check", "--json"), ("status",), ("status", "--json"), ("freeze",), ("thaw",)]
# What the worker's user may not do: its rights are for the worker's work.
REFUSED = [
    ("tail", "predictions", "--from-beginning", "--limit", "1"),
    ("explain", "f1"),
    ("produce", "--limit", "1"),
    ("topics", "create", "--pipeline", "tests.security.guarded_run:r00000000"),
]


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_nothing_that_runs_tells_a_secret(
    run: Guarded, secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs at DEBUG, answers and errors of commands, process arguments, /metrics, and what is written to topics."""
    items = flights()
    port = int(run.settings["HEADWATER_WEB_PORT"])

    async def work() -> None:
        await run.create()
        await secured.allow(run.principal, *run.acls)
        run.start()
        await run.write(run.pipeline.events.topic, b"no JSON")
        await run.works(items, len(items) - LABELS, LABELS)

    asyncio.run(work())
    assert_says_no_secret("the process list", command_lines())
    if sys.platform == "linux":
        assert listening(run.workers[0].pid) == {port}, "Faust's own web server is off"
    assert_says_no_secret("/metrics", metrics(port))
    for name, value in run.settings.items():
        monkeypatch.setenv(name, value)
    caplog.set_level("DEBUG")
    for words in (*DONE, ("doctor",), ("doctor", "--json"), *REFUSED):
        answer = CliRunner().invoke(main, words)
        assert_says_no_secret(" ".join(words), answer.output)
        assert (answer.exit_code == 0) == (words in DONE or words[0] == "doctor"), answer.output
    for setting in ("HEADWATER_SASL_PASSWORD", "HEADWATER_SSL_KEY_PASSWORD"):
        monkeypatch.setenv(setting, "another-passw0rd")
        refused = CliRunner().invoke(main, ["status"])
        assert refused.exit_code == 1
        assert "HEADWATER_S" in refused.output
        assert "another-passw0rd" not in refused.output + caplog.text
        monkeypatch.setenv(setting, run.settings[setting])
    assert "SaslAuthenticate(***)" in caplog.text, "requests are logged here, and this one without what is in it"
    assert_says_no_secret("the log of the commands", caplog.text)
    run.workers[0].terminate()
    code, said = asyncio.run(run.finished(0))
    assert code == 0, said
    assert "SaslAuthenticate(***)" in said
    assert_says_no_secret("the worker's log", said)
    assert_says_no_secret("its topics", asyncio.run(written(run)))


def metrics(port: int) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        body: bytes = response.read()
    assert b"headwater_predictions_total" in body
    return body


async def written(run: Guarded) -> bytes:
    """Every record of every topic of the run: keys, values, headers."""
    found = []
    for spec in run.specs:
        for record in await run.read(spec.name):
            found += [record.key or b"", record.value or b"", json.dumps(str(record.headers)).encode()]
    assert len(found) > 10_000
    return b"\n".join(found)


def test_local_kafka_does_not_get_the_settings() -> None:
    """A dump of Java's shows its environment, and it needs nothing of ours."""
    environment = {"HEADWATER_SASL_PASSWORD": PASSWORD, "HEADWATER_PIPELINE": "flights", "PATH": "/bin"}
    assert without_settings(environment) == {"PATH": "/bin"}
