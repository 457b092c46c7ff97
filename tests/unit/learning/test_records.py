"""The wire form of what the learning room writes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.records import Control, Correction, Example, LogRecord, decode_log, encode

FINITE = st.floats(allow_nan=False, allow_infinity=False)
OUTCOMES = st.booleans() | FINITE | st.text()
EXAMPLES = st.builds(
    Example,
    time_ms=st.integers(0, 2**53),
    label_time_ms=st.integers(0, 2**53),
    version=st.integers(0, 2**53),
    prediction=FINITE | st.dictionaries(st.text(), FINITE),
    features=st.lists(FINITE),
    outcome=OUTCOMES,
    kept=st.booleans(),
)
CORRECTIONS = st.builds(
    Correction,
    time_ms=st.integers(0, 2**53),
    label_time_ms=st.integers(0, 2**53),
    outcome=OUTCOMES,
    previous=OUTCOMES,
)
CONTROLS = st.builds(Control, time_ms=st.integers(0, 2**53), to=st.none() | st.integers(0, 2**53))


@given(EXAMPLES | CORRECTIONS | CONTROLS)
def test_log_record_survives_the_wire(record: LogRecord) -> None:
    again = decode_log(encode(record))
    assert again == record
    if not isinstance(record, Control) and not isinstance(again, Control):
        assert type(again.outcome) is type(record.outcome)


def test_unknown_field_is_accepted_and_unknown_kind_is_not() -> None:
    data = encode(Correction("a", "k", 0, 1, True, False))
    assert decode_log(data[:-1] + b',"added_later":1}') == decode_log(data)
    with pytest.raises(msgspec.ValidationError):
        decode_log(data.replace(b'"correction"', b'"command"'))


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"control","action":"stop","time_ms":0,"by":"ann"}',
        b'{"type":"control","action":"rollback","time_ms":0,"by":"ann","to":-1}',
        b'{"type":"control","action":"rollback","time_ms":0,"by":"ann","to":"5"}',
        b'{"type":"control","action":"freeze","time_ms":0}',
    ],
)
def test_control_that_cannot_be_is_no_record(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_log(data)
