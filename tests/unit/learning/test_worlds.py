"""The alarms find what changes in `card_fraud`, in a world that no setting was tried on; `make alarms` has more."""

from bench.worlds import ENOUGH, world
from learning.survey import BUDGET


def test_both_changes_are_found_and_little_else() -> None:
    told = world(seed=4)
    assert [n is not None and 0 < n <= ENOUGH for n in told.until_found] == [True, True], told
    assert len(told.others) <= told.days * BUDGET, told
