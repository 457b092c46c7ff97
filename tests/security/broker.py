"""One Kafka with every kind of listener and with ACLs: what the tests of security share.

The plain listener is the tests' own: they look at topics there, and nobody else is a super user.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from streaming.brokers import LocalKafka, free_port
from streaming.permissions import Acl
from tests.security.pki import KEY_PASSWORD, Authority

USER = "worker"
PASSWORD = "pa55word-of-the-worker"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
PLAIN_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
LISTENERS = {"SASL": "SASL_PLAINTEXT", "TLS": "SSL", "MUTUAL": "SSL", "SASLTLS": "SASL_SSL", "PLAINONLY": "SASL_SSL"}
RESOURCES = {"topic": 2, "group": 3, "transactional-id": 5}
PATTERNS = {"literal": 3, "prefixed": 4}
OPERATIONS = {"Read": 3, "Write": 4}
ALLOW, ANY_HOST = 3, "*"


class SecuredKafka:
    """A running broker, and what clients of each of its listeners have to set."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "authority")
        self.stranger = Authority(folder, "stranger")
        self.client = self.authority.issue("client", password=KEY_PASSWORD)
        self.ports = {name: free_port() for name in LISTENERS}
        self.kafka = LocalKafka(
            folder / "kafka",
            settings=self._settings(),
            listeners=self.ports,
            formatting=[f"--add-scram={mechanism}=[name={USER},password={PASSWORD}]" for mechanism in SCRAM],
        )

    def _settings(self) -> dict[str, str]:
        certificate, key = self.authority.issue("broker")
        store = _one_file(certificate.parent / "broker.pem", key, certificate)
        kinds = ",".join(f"{name}:{kind}" for name, kind in LISTENERS.items())
        settings = {
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{kinds}",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "sasl.enabled.mechanisms": ",".join(("PLAIN", *SCRAM)),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.tls.ssl.client.auth": "none",
            "listener.name.sasltls.ssl.client.auth": "none",
            "listener.name.plainonly.ssl.client.auth": "none",
            # Without it a broker holds back an answer to a wrong password by 100 ms, and the tests ask often.
            "connection.failed.authentication.delay.ms": "0",
        }
        settings["listener.name.plainonly.sasl.enabled.mechanisms"] = "PLAIN"
        for name in ("sasl", "sasltls", "plainonly"):
            users = f'user_{USER}="{PASSWORD}"'
            settings[f"listener.name.{name}.plain.sasl.jaas.config"] = f"{PLAIN_MODULE} {users};"
            for mechanism in SCRAM:
                settings[f"listener.name.{name}.{mechanism.lower()}.sasl.jaas.config"] = SCRAM_MODULE
        return settings

    def at(self, listener: str) -> str:
        """The listener's address."""
        return f"127.0.0.1:{self.ports[listener]}"

    def settings(self, listener: str, mechanism: str = "PLAIN") -> dict[str, str]:
        """The environment of a client of a listener."""
        kind = LISTENERS[listener]
        found = {"HEADWATER_BROKER": self.at(listener), "HEADWATER_SECURITY_PROTOCOL": kind}
        if "SSL" in kind:
            found["HEADWATER_SSL_CA_FILE"] = str(self.authority.file)
        if "SASL" in kind:
            found |= {"HEADWATER_SASL_MECHANISM": mechanism, "HEADWATER_SASL_USERNAME": USER}
            found["HEADWATER_SASL_PASSWORD"] = PASSWORD
        if listener == "MUTUAL":
            certificate, key = self.client
            found |= {"HEADWATER_SSL_CERT_FILE": str(certificate), "HEADWATER_SSL_KEY_FILE": str(key)}
            found["HEADWATER_SSL_KEY_PASSWORD"] = KEY_PASSWORD
        return found

    async def allow(self, principal: str, *acls: Acl) -> None:
        """Grant exactly these."""
        async with self._admin() as admin:
            for acl in acls:
                (said,) = (await admin._send_request(CreateAclsRequest(*_entry(principal, acl)))).creation_responses
                assert said[0] == 0, said

    async def forbid(self, principal: str, *acls: Acl) -> None:
        """Take exactly these back."""
        async with self._admin() as admin:
            for acl in acls:
                (said,) = (await admin._send_request(DeleteAclsRequest(*_entry(principal, acl)))).filter_responses
                assert said[0] == 0, said
                assert len(said[2]) == 1, f"there was no {acl}"

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        try:
            yield admin
            await asyncio.sleep(0.2)  # the broker hears of it from its controller a moment after it is answered
        finally:
            await admin.close()


def _entry(principal: str, acl: Acl) -> tuple[int, str, int, str, str, int, int]:
    return (
        RESOURCES[acl.resource],
        acl.name,
        PATTERNS[acl.pattern],
        principal,
        ANY_HOST,
        OPERATIONS[acl.operation],
        ALLOW,
    )


def _one_file(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    path.chmod(0o600)
    return path
