"""Settings are refused with a message that says what to do."""

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
