"""Settings are refused with a message that says what to do."""

from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings, SettingsError, known_names, load_settings, refuse_unknown


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="HEADWATER_BROKR; did you mean HEADWATER_BROKER"):
        refuse_unknown({"HEADWATER_BROKR": "x"})


def test_known_and_foreign_names_pass() -> None:
    foreign = {"HEADWATER_TEST_BROKER": "", "HEADWATER_DATA": "", "HEADWATER_CACHE": "", "PATH": ""}
    refuse_unknown(dict.fromkeys(known_names(), "") | foreign)


def test_wrong_value_names_the_variable_and_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_CHUNK", "many")
    with pytest.raises(SettingsError, match="HEADWATER_CHUNK: got 'many'"):
        load_settings()
    assert "s3cret" not in repr(Settings(chunk=1, sasl_password="s3cret"))


def test_engine_config_takes_units_of_the_engine() -> None:
    config = Settings(max_ahead=2.0, transaction_timeout=3.0).engine_config("cards")
    assert (config.app_id, config.max_ahead_ms, config.transaction_timeout_ms) == (
        "headwater-cards",
        2000,
        3000,
    )


@pytest.mark.parametrize("broker", ["kafka:9092", "a:1,b:2", "127.0.0.1:9092", "[::1]:9092", "b-1.x_y.example:9096"])
def test_broker_is_one_address_or_more(broker: str) -> None:
    assert load_settings(broker=broker).broker == broker


@pytest.mark.parametrize(
    "broker", ["kafka", "kafka:port", "a:1,", "a:1, b:2", "kafka://a:1", "a:0", "a:65536", "::1:1"]
)
def test_broker_that_is_no_address_is_refused_with_what_was_expected(broker: str) -> None:
    with pytest.raises(SettingsError, match=r"HEADWATER_BROKER: got .*; expected host:port"):
        load_settings(broker=broker)


def test_certificate_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("none.pem", "empty.pem"):
        settings = Settings(security_protocol="SSL", ssl_ca_file=tmp_path / name)
        with pytest.raises(SettingsError, match=rf"HEADWATER_SSL_CA_FILE: got .*{name}.*cannot be read as a PEM file"):
            settings.engine_config()


def test_sasl_needs_a_user() -> None:
    with pytest.raises(SettingsError, match="set HEADWATER_SASL_USERNAME and HEADWATER_SASL_PASSWORD"):
        Settings(security_protocol="SASL_PLAINTEXT").security()
    options = Settings(security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password="p").security().options()
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", "p")


@pytest.mark.parametrize(
    ("settings", "principal"),
    [
        ({}, "User:ANONYMOUS"),
        ({"ssl_cert_file": "none.pem"}, "User:ANONYMOUS"),  # which PLAINTEXT does not send
        ({"security_protocol": "SSL"}, "User:ANONYMOUS"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "u", "sasl_password": "p"}, "User:u"),
    ],
)
def test_principal_is_who_the_broker_sees(settings: dict[str, Any], principal: str) -> None:
    assert Settings(**settings).security().principal == principal


def test_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(SettingsError, match="HEADWATER_SSL_KEY_FILE needs HEADWATER_SSL_CERT_FILE"):
        Settings(security_protocol="SSL", ssl_key_file=Path("key.pem")).security()
