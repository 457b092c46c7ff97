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

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streaming.config import EngineConfig

PREFIX = "HEADWATER_"
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
    guarantee: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="Delivery of state and learning. `exactly_once` needs a broker with transactions.",
    )
    predictions: Literal["transactional", "immediate"] = Field(
        "transactional",
        description="`transactional`: visible at the checkpoint. `immediate`: at once, may repeat.",
    )
    checkpoint_interval: float = Field(0.5, gt=0, le=60, description="Seconds between checkpoints of a unit.")
    chunk: int = Field(500, ge=1, le=100_000, description="Most records of one partition handed to an agent at once.")
    partitions: int = Field(
        4, ge=1, le=10_000, description="Partitions of the topics that `headwater topics create` creates."
    )
    replication_factor: int = Field(
        1, ge=1, le=10, description="Replication of the topics that are created. 3 for production."
    )
    session_timeout: float = Field(
        10.0,
        ge=1,
        le=300,
        description="Seconds without a heartbeat after which a worker's partitions go to another.",
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
    web_host: str = Field(
        "127.0.0.1", min_length=1, description="Address the worker's web server (`/metrics`) listens on."
    )
    web_port: int = Field(6066, ge=0, le=65_535, description="Port of the worker's web server.")
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
    data_dir: Path = Field(
        Path(".headwater"),
        description="Folder for the worker's own files. State is not among them: it is in Kafka.",
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

    def group(self, pipeline_name: str) -> str:
        """The application id: the setting, else one derived from the pipeline's name."""
        return self.app_id or f"headwater-{pipeline_name}"

    def security(self) -> dict[str, Any]:
        """Arguments for aiokafka's clients. Raises SettingsError."""
        if self.security_protocol == "PLAINTEXT":
            return {}
        options: dict[str, Any] = {"security_protocol": self.security_protocol}
        if "SSL" in self.security_protocol.split("_"):
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            if not self.sasl_username:
                message = (
                    f"{PREFIX}SECURITY_PROTOCOL={self.security_protocol} needs a user;"
                    f" set {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD"
                )
                raise SettingsError(message)
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ssl_ca_file)
        except OSError as error:  # no such file, or nothing that ssl can read
            message = (
                f"{PREFIX}SSL_CA_FILE: got {str(self.ssl_ca_file)!r}, which cannot be read as a PEM file of certificate"
                f" authorities ({error.strerror or error}). Correct or unset it; see docs/settings.md."
            )
            raise SettingsError(message) from error

    def snapshot_keys(self) -> list[bytes]:
        """The keys that snapshots are signed with; none where they are not."""
        return [key.encode() for key in self.snapshot_key.get_secret_value().split(",") if key]

    def engine_config(self, pipeline_name: str | None = None) -> EngineConfig:
        """What the engine needs to be told. Without a name, the app id is built from the pipeline setting."""
        name = pipeline_name or self.pipeline.partition(":")[2] or self.pipeline
        return EngineConfig(
            bootstrap=self.broker,
            app_id=self.group(name),
            guarantee=self.guarantee,
            predictions=self.predictions,
            checkpoint_interval=self.checkpoint_interval,
            chunk=self.chunk,
            session_timeout=self.session_timeout,
            max_ahead_ms=int(self.max_ahead * 1000),
            max_bytes=self.max_bytes,
            dead_letter_limit=self.dead_letter_limit,
            transaction_timeout_ms=int(self.transaction_timeout * 1000),
            replication_factor=self.replication_factor,
            partitions=self.partitions,
            security=self.security(),
        )


def known_names() -> list[str]:
    """Every environment variable that is a setting."""
    return [PREFIX + name.upper() for name in Settings.model_fields]


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


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with these values before it. Raises SettingsError for people."""
    refuse_unknown(os.environ)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_explain(dict(problem)) for problem in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from None


def _explain(problem: dict[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "?"
    env = name if name.startswith(PREFIX) else PREFIX + name.upper()
    got = "***" if "password" in name.lower() else repr(problem.get("input"))
    said = problem["msg"].removeprefix("Value error, ")
    return f"{env}: got {got}; {said[0].lower()}{said[1:]}. Correct or unset it; see docs/settings.md."
