"""How the engine's clients say who they are to the broker, and what a broker that turns them away has against it.

One record for all of them: aiokafka's clients take it as arguments, Faust (`streaming.app`) as its own credentials.
"""

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from aiokafka import conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.admin import SaslAuthenticateRequest
from aiokafka.protocol.metadata import MetadataRequest
from pydantic import SecretStr

if TYPE_CHECKING:
    from streaming.config import EngineConfig

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

PROBE_TIMEOUT_MS = 3_000
WRONG_NAME = 62, 64  # OpenSSL's codes for a certificate of another host, by name and by address


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """Protocol and credentials of every client. The password shows in no representation of it.

    Attributes:
        protocol: how to talk to the broker.
        mechanism: how to say the password, where the protocol is SASL_*.
        username: of SASL.
        password: of SASL.
        context: whom to believe, and the client's own certificate, where the protocol has TLS.
        certified: whether the context has a certificate of the client.
    """

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = "PLAIN"
    username: str = ""
    password: SecretStr = SecretStr("")
    context: ssl.SSLContext | None = None
    certified: bool = False

    @property
    def sasl(self) -> bool:
        """Whether a user and a password are sent."""
        return self.protocol.startswith("SASL")

    @property
    def principal(self) -> str | None:
        """Who the broker takes this client for by its default rules; None where only its certificate says so.

        >>> Security(protocol="SASL_SSL", username="worker").principal
        'User:worker'
        """
        if self.sasl:
            return f"User:{self.username}"
        return None if self.certified else "User:ANONYMOUS"

    def options(self) -> dict[str, Any]:
        """Arguments for aiokafka's clients. For passing on only: the password is in them as it is."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.context is not None:
            options["ssl_context"] = self.context
        if self.sasl:
            keep_out_of_logs()
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password.get_secret_value()
        return options


class WithoutPasswords(logging.Filter):
    """Lets aiokafka log its requests without the one that carries the password.

    At DEBUG it logs every request in full, and with PLAIN the password is in one as it is.
    """

    _struct = SaslAuthenticateRequest._CLASSES

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True; the request's content is replaced."""
        if isinstance(record.args, tuple):
            record.args = tuple("SaslAuthenticate(***)" if isinstance(a, self._struct) else a for a in record.args)
        return True


_WITHOUT_PASSWORDS = WithoutPasswords()


def keep_out_of_logs() -> None:
    """Have aiokafka log no password; before any client has one."""
    conn.log.addFilter(_WITHOUT_PASSWORDS)  # the same filter is not added twice


async def refusal(config: "EngineConfig") -> str | None:
    """What the brokers have against this client and which setting it is about; None where they do not answer at all.

    aiokafka logs the reason and raises an error without it, so here one connection is made by hand to each of them.
    """
    for address in config.bootstrap.split(","):
        host, _, port = address.rpartition(":")
        try:
            await _converse(config, host.strip("[]"), int(port))
        except (TimeoutError, OSError, KafkaError, ssl.CertificateError) as error:
            said = explain(config.security, host.strip("[]"), error)
            await asyncio.sleep(0.05)  # what aiokafka has closed is gone only after a turn of the loop
            if said is not None:
                return f"the broker at {address} turns this client away: {said}"
    return None


async def _converse(config: "EngineConfig", host: str, port: int) -> None:
    """Connect, say who we are and ask for something, as a client would."""
    connection = await conn.create_conn(host, port, request_timeout_ms=PROBE_TIMEOUT_MS, **config.security.options())
    try:
        await connection.send(MetadataRequest([]))
    finally:
        await asyncio.wait([connection.close()], timeout=1.0)


def explain(security: Security, host: str, error: BaseException) -> str | None:
    """What an error of a new connection means, for people; None for one that says nothing about security. Pure."""
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, KafkaError) and (said := _sasl_failed(security, cause)) is not None:
            return said
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _bad_certificate(host, cause)
        if isinstance(cause, ssl.SSLError):
            return _tls_failed(security, cause)
    if not any(isinstance(cause, EOFError | ConnectionResetError) for cause in causes):
        return None
    return _wrong_protocol(security, "it ends the connection without a word, so it expects another protocol there")


def _sasl_failed(security: Security, error: KafkaError) -> str | None:
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"it does not take HEADWATER_SASL_MECHANISM={security.mechanism} there; correct that"
    if isinstance(error, IllegalSaslStateError):
        return _wrong_protocol(security, "it asks for no user there")
    if isinstance(error, SaslAuthenticationFailed):
        return (
            f"user {security.username!r} or the password is not right for {security.mechanism}; correct"
            " HEADWATER_SASL_USERNAME, HEADWATER_SASL_PASSWORD or HEADWATER_SASL_MECHANISM"
        )
    return None


def _chain(error: BaseException | None) -> Any:
    """The error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _bad_certificate(host: str, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in WRONG_NAME:
        return (
            f"its certificate is not for {host!r} ({error.verify_message}); name the broker in HEADWATER_BROKER as its"
            " certificate does"
        )
    return (
        f"its certificate is not to be trusted ({error.verify_message}); name the PEM file of the authority that issued"
        " it in HEADWATER_SSL_CA_FILE"
    )


def _tls_failed(security: Security, error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "EOF" in reason:
        return _wrong_protocol(security, "it does not answer in TLS")
    if "CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason:
        return (
            f"it wants a certificate of this client, or another one ({reason}); set HEADWATER_SSL_CERT_FILE and"
            " HEADWATER_SSL_KEY_FILE to one that it trusts"
        )
    return f"TLS failed ({reason}); see HEADWATER_SECURITY_PROTOCOL and HEADWATER_SSL_*"


def _wrong_protocol(security: Security, what: str) -> str:
    return (
        f"{what}; HEADWATER_SECURITY_PROTOCOL is {security.protocol}, which must be that of the listener at this port"
    )
