"""Settings `HEADWATER_*`: typed, frozen, each documented in one line; docs/settings.md comes from here.

Read once, at the entry point, and passed on. An unknown name is refused, with the nearest known one.
"""

import difflib
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretBytes, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streaming.config import EngineConfig
from streaming.security import Security

PREFIX = "HEADWATER_"
FILE = "_FILE"  # after the name of a secret: the file that it is in
SHORTEST_TOKEN = 16
ADDRESS = re.compile(r"(?:[^\s,:\[\]]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
FOREIGN = {f"{PREFIX}DATA", f"{PREFIX}CACHE"}
FOREIGN_PREFIX = f"{PREFIX}TEST_"
"""Names that belong to the tests, the optional data streams and the local broker, not to the worker."""


class SettingsError(Exception):
    """A setting is unknown or has a value that cannot be used; the message says which and what to do."""


class Settings(BaseSettings):
    """All settings of a worker and of the command line."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    broker: str = Field("localhost:9092", min_length=1, description="Kafka bootstrap servers, `host:port[,host:port]`.")
    pipeline: str = Field("flights", min_length=1, description="Pipeline: a built-in name, or `package.module:name`.")
    app_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Consumer group and prefix of changelogs. Empty: `headwater-<pipeline name>`.",
    )
    role: Literal["pair", "all", "serve", "watch"] = Field(
        "pair",
        description="What of the work this worker does. `serve`: predict and join labels. `watch`: quality, drift,"
        " incidents and snapshots, of which one worker at a time is in charge; where some serve, one or two must watch."
        " `pair`: both, each in a process of its own, so that watching takes little from who predicts. `all`: both in"
        " one process, for a machine with one core or little memory.",
    )
    guarantee: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="Delivery of state and learning. `exactly_once` needs a broker with transactions.",
    )
    predictions: Literal["transactional", "immediate"] = Field(
        "transactional",
        description="`transactional`: visible at the checkpoint. `immediate`: at once, may repeat.",
    )
    checkpoint_interval: float = Field(
        0.5,
        gt=0,
        le=60,
        description="Seconds between checkpoints of a unit; the log's has one in four while it has nothing to publish.",
    )
    chunk: int = Field(500, ge=1, le=100_000, description="Most records of one partition handed to an agent at once.")
    partitions: int = Field(
        4, ge=1, le=10_000, description="Partitions of the topics that `headwater topics create` creates."
    )
    replication_factor: int = Field(
        1, ge=1, le=10, description="Replication of the topics that are created. 3 for production."
    )
    create_topics: bool = Field(
        True, description="Whether a worker creates topics that are missing. `false`: it ends and says which."
    )
    session_timeout: float = Field(
        10.0,
        ge=1,
        le=300,
        description="Seconds without a heartbeat after which a worker's partitions go to another.",
    )
    request_timeout: float = Field(
        30.0,
        ge=1,
        le=600,
        description="Seconds that the broker gets for an answer, a checkpoint to be durable, and recovery to get on."
        " Then a request is made again on a new connection; the other two end the worker.",
    )
    transaction_timeout: float = Field(
        15.0, ge=1, le=900, description="Seconds after which the broker aborts an open transaction."
    )
    max_ahead: float = Field(
        86_400.0,
        ge=0,
        description="Seconds an event may be ahead of its Kafka timestamp; more is a dead letter.",
    )
    max_bytes: int = Field(1_000_000, ge=1, description="Largest value in bytes; a larger one is a dead letter.")
    dead_letter_limit: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of dead letters among the last 1000 records above which the worker stops.",
    )
    snapshot_examples: int = Field(
        10_000, ge=0, description="Examples after which the model is saved again. 0: it never is."
    )
    snapshot_interval: float = Field(
        600.0, gt=0, description="Seconds after which it is saved too, if it has learned anything meanwhile."
    )
    snapshot_slots: int = Field(4, ge=1, le=100, description="How many snapshots are kept.")
    snapshot_key: SecretStr = Field(
        SecretStr(""),
        description="Key that snapshots are signed with, and must be. Several, by commas: the first signs, all are"
        " believed. Never printed.",
    )
    compiled: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether features and linear models run compiled, which needs the extra `[fast]`; the numbers are"
        " the same. `auto`: where they can be. `on`: or else the worker does not start. `off`: in Python.",
    )
    event_loop: Literal["auto", "uvloop", "asyncio"] = Field(
        "auto",
        description="What runs the worker's turns. `auto`: uvloop where it is installed, as the extra `[fast]` does:"
        " predictions wait for less. `uvloop`: or else the worker does not start. `asyncio`: Python's own.",
    )
    web_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address the worker's web server (the page, `/metrics`) listens on. Another than loopback needs"
        " `HEADWATER_WEB_TOKEN`.",
    )
    web_token: SecretStr = Field(
        SecretStr(""),
        description="What `Authorization: Bearer` must say for anything but `/health`. Needed where the web server does"
        " not listen on loopback. Never printed.",
    )
    web_port: int = Field(6066, ge=0, le=65_535, description="Port of the worker's web server.")
    trace_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of predictions whose journey is traced with OpenTelemetry, by a hash of the id; needs the"
        " extra `otel`. 0: none.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the broker."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism, where the protocol is SASL_*."
    )
    sasl_username: str = Field("", description="SASL user name.")
    sasl_password: SecretStr = Field(SecretStr(""), description="SASL password. Never printed.")
    ssl_ca_file: Path | None = Field(None, description="PEM file of certificate authorities. Unset: the system's.")
    ssl_cert_file: Path | None = Field(
        None, description="PEM file of the client's certificate, where the broker asks for one."
    )
    ssl_key_file: Path | None = Field(
        None, description="PEM file of its private key. Unset: it is in `HEADWATER_SSL_CERT_FILE` too."
    )
    ssl_key_password: SecretStr = Field(
        SecretStr(""), description="Password of that key, if it has one. Never printed."
    )
    store: Literal["memory", "disk"] = Field(
        "memory",
        description="Where a worker has profiles and pending labels, of which Kafka has everything. `disk`: in RocksDB"
        " under `HEADWATER_DATA_DIR`, for state larger than memory; needs the extra `[disk]`.",
    )
    store_cache_mb: int = Field(
        256,
        ge=8,
        le=1_000_000,
        description="Megabytes of memory that a worker's state on disk may take, over all its partitions: half for"
        " values, half for RocksDB's blocks and write buffers.",
    )
    data_dir: Path = Field(
        Path(".headwater"),
        description="Folder for the worker's own files: state on disk and compiled code, and what the local broker has."
        " A worker that finds its files gone makes them again from Kafka.",
    )

    @field_validator("broker")
    @classmethod
    def _is_addresses(cls, value: str) -> str:
        for address in value.split(","):
            found = ADDRESS.fullmatch(address)
            if found is None or not 0 < int(found[1]) <= 65_535:
                message = "expected host:port[,host:port]"
                raise ValueError(message)
        return value

    @field_validator("web_token")
    @classmethod
    def _is_token(cls, value: SecretStr) -> SecretStr:
        token = value.get_secret_value()
        if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
            message = (
                f"expected at least {SHORTEST_TOKEN} characters of ASCII without spaces, as in `openssl rand -hex 32`"
            )
            raise ValueError(message)
        return value

    def group(self, pipeline_name: str) -> str:
        """The application id: the setting, else one derived from the pipeline's name."""
        return self.app_id or f"headwater-{pipeline_name}"

    def security(self) -> Security:
        """How clients talk to the broker. Raises SettingsError."""
        context = self._ssl_context() if self.security_protocol in ("SSL", "SASL_SSL") else None
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            message = (
                f"{PREFIX}SECURITY_PROTOCOL={self.security_protocol} needs a user and a password;"
                f" set {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD"
            )
            raise SettingsError(message)
        return Security(
            protocol=self.security_protocol,
            mechanism=self.sasl_mechanism,
            username=self.sasl_username,
            password=self.sasl_password,
            context=context,
            certified=context is not None and self.ssl_cert_file is not None,
        )

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ssl_ca_file)
        except OSError as error:  # no such file, or nothing that ssl can read
            message = (
                f"{PREFIX}SSL_CA_FILE: got {str(self.ssl_ca_file)!r}, which cannot be read as a PEM file of certificate"
                f" authorities ({error.strerror or error}). Correct or unset it; see docs/settings.md."
            )
            raise SettingsError(message) from error
        if self.ssl_cert_file is not None:
            self._load_certificate(context, self.ssl_cert_file)
        elif self.ssl_key_file is not None:
            message = f"{PREFIX}SSL_KEY_FILE needs {PREFIX}SSL_CERT_FILE, the certificate that the key belongs to"
            raise SettingsError(message)
        return context

    def _load_certificate(self, context: ssl.SSLContext, certificate: Path) -> None:
        try:
            # A function, also where there is no password: without one OpenSSL would ask for it at the terminal.
            context.load_cert_chain(certificate, self.ssl_key_file, self.ssl_key_password.get_secret_value)
        except (OSError, ValueError) as error:
            message = (
                f"{PREFIX}SSL_CERT_FILE={str(certificate)!r}, {PREFIX}SSL_KEY_FILE={str(self.ssl_key_file or '')!r} and"
                f" {PREFIX}SSL_KEY_PASSWORD: the client's certificate cannot be used ({_reason(error)}). Expected a"
                " certificate and its private key as PEM files, and the key's password if it has one."
            )
            raise SettingsError(message) from error

    def snapshot_keys(self) -> list[SecretBytes]:
        """The keys that snapshots are signed with; none where they are not."""
        return [SecretBytes(key.encode()) for key in self.snapshot_key.get_secret_value().split(",") if key]

    def engine_config(self, pipeline_name: str | None = None) -> EngineConfig:
        """What the engine needs to be told. Without a name, the app id is built from the pipeline setting."""
        name = pipeline_name or self.pipeline.partition(":")[2] or self.pipeline
        return EngineConfig(
            bootstrap=self.broker,
            app_id=self.group(name),
            role=self.role,
            guarantee=self.guarantee,
            predictions=self.predictions,
            checkpoint_interval=self.checkpoint_interval,
            chunk=self.chunk,
            session_timeout=self.session_timeout,
            request_timeout=self.request_timeout,
            max_ahead_ms=int(self.max_ahead * 1000),
            max_bytes=self.max_bytes,
            dead_letter_limit=self.dead_letter_limit,
            transaction_timeout_ms=int(self.transaction_timeout * 1000),
            replication_factor=self.replication_factor,
            partitions=self.partitions,
            create_topics=self.create_topics,
            store=self.store,
            store_cache_mb=self.store_cache_mb,
            data_dir=self.data_dir,
            security=self.security(),
        )


def secret_names() -> list[str]:
    """The fields that are secrets."""
    return [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


def known_names() -> list[str]:
    """Every environment variable that is a setting, or names the file that a secret one is in."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    return names + [f"{PREFIX}{name.upper()}{FILE}" for name in secret_names()]


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raise for a `HEADWATER_*` name that is no setting, since a typing mistake would pass silently."""
    known = known_names()
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper in FOREIGN or upper.startswith(FOREIGN_PREFIX):
            continue
        near = difflib.get_close_matches(upper, known, n=1, cutoff=0.0)
        message = f"unknown setting {name}; did you mean {near[0]}? Rename or unset it; docs/settings.md has all."
        raise SettingsError(message)


def secrets_in_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Secrets whose file is named by `<setting>_FILE`, as Docker and Kubernetes hand them out. Raises SettingsError.

    The end of the line that an editor leaves is not part of a secret.
    """
    given = {name.upper(): value for name, value in environ.items() if value}
    found = {}
    for name in secret_names():
        setting = PREFIX + name.upper()
        path = given.get(setting + FILE)
        if path is None:
            continue
        if setting in given:
            message = f"{setting} and {setting}{FILE} are both set, expected one of them; unset the other"
            raise SettingsError(message)
        try:
            found[name] = Path(path).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            message = f"{setting}{FILE}: got {path!r}, which cannot be read as a text file ({_reason(error)})"
            raise SettingsError(message) from None  # a decoding error shows what is in the file
        if not found[name]:
            message = f"{setting}{FILE}: got {path!r}, which is empty; expected the secret in it"
            raise SettingsError(message)
    return found


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with these values before it. Raises SettingsError for people."""
    refuse_unknown(os.environ)
    overrides = {**secrets_in_files(os.environ), **overrides}
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_explain(dict(problem)) for problem in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from None


def _explain(problem: dict[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "?"
    env = name if name.startswith(PREFIX) else PREFIX + name.upper()
    got = "***" if name.lower().removeprefix(PREFIX.lower()) in secret_names() else repr(problem.get("input"))
    said = problem["msg"].removeprefix("Value error, ")
    return f"{env}: got {got}; {said[0].lower()}{said[1:]}. Correct or unset it; see docs/settings.md."


def _reason(error: Exception) -> str:
    """What an error says about why, and nothing of what it was about."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)
