"""Generated pages are what the code says."""

from app.docs import stale


def test_generated_pages_are_current() -> None:
    assert stale() == [], "run `python -m app.docs`"
