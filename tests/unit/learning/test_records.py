"""The wire form of what the learning room writes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.records import Correction, Example, LogRecord, decode_log, encode

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
)
CORRECTIONS = st.builds(
    Correction,
    time_ms=st.integers(0, 2**53),
    label_time_ms=st.integers(0, 2**53),
    outcome=OUTCOMES,
    previous=OUTCOMES,
)


@given(EXAMPLES | CORRECTIONS)
def test_log_record_survives_the_wire(record: LogRecord) -> None:
    again = decode_log(encode(record))
    assert again == record
    assert type(again.outcome) is type(record.outcome)


def test_unknown_field_is_accepted_and_unknown_kind_is_not() -> None:
    data = encode(Correction("a", "k", 0, 1, True, False))
    assert decode_log(data[:-1] + b',"added_later":1}') == decode_log(data)
    with pytest.raises(msgspec.ValidationError):
        decode_log(data.replace(b'"correction"', b'"command"'))
