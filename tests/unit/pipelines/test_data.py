"""The data streams beside flights and cards: where files are looked for, and that each history fits its pipeline."""

import gzip
from collections.abc import Iterable
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines import data, elec2, fraud_handbook, phishing
from pipelines.definition import DefinitionError, Pipeline

ELEC2 = (
    "date,day,period,nswprice,nswdemand,vicprice,vicdemand,transfer,class\n0,2,0,0.1,0.2,0.3,0.4,0.5,UP\n"
    + "0,2,0.5,0.1,0.2,0.3,0.4,0.5,DOWN\n" * 17_472
)
HANDBOOK = "tx_id,ts,customer_id,terminal_id,amount,fraud,scenario\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the data streams, empty."""
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()))


def times_of(pipeline: Pipeline, items: Iterable[Any]) -> list[int]:
    streams = {pipeline.events.struct: pipeline.events, pipeline.labels.struct: pipeline.labels}
    return [streams[type(item)].time_of(item) for item in items]


def test_missing_file_is_named_with_where_it_was_looked_for(folder: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        next(elec2.history())
    assert [word for word in ("elec2.csv.gz", str(folder), "HEADWATER_DATA") if word not in str(caught.value)] == []


def test_folder_of_the_command_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(data.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "hw_only_here.csv.gz", "a,b\n1,2\n")
    assert list(data.rows("hw_only_here.csv.gz")) == [{"a": "1", "b": "2"}]


def test_elec2_gives_each_label_directly_after_its_event(folder: Path) -> None:
    write(folder / "elec2.csv.gz", ELEC2)
    items = list(islice(elec2.history(), 4))
    assert [type(item) for item in items] == [elec2.HalfHour, elec2.Movement] * 2
    assert [item.outcome for item in items if isinstance(item, elec2.Movement)] == [True, False]
    assert [elec2.elec2.events.id_of(item) for item in items] == ["0", "0", "1", "1"]
    first = items[0]
    assert isinstance(first, elec2.HalfHour)
    assert (first.day, first.nswprice, first.transfer) == (2.0, 0.1, 0.5)


def test_elec2_steps_back_by_a_day_where_the_data_set_repeats_one(folder: Path) -> None:
    write(folder / "elec2.csv.gz", ELEC2)
    events = [item for item in elec2.history() if isinstance(item, elec2.HalfHour)]
    steps = {b.row: b.started_at - a.started_at for a, b in pairwise(events)}
    assert {row: step for row, step in steps.items() if step != timedelta(minutes=30)} == {
        17_424: timedelta(minutes=30) - timedelta(days=1)
    }
    assert f"{events[17_424].started_at:%A %Y-%m-%d %H:%M}" == "Sunday 1997-05-04 00:00"
    assert elec2.elec2.horizon > timedelta(days=1)


def test_phishing_gives_each_label_directly_after_its_event() -> None:
    items = list(phishing.history())
    assert [type(item) for item in items] == [phishing.Site, phishing.Verdict] * 1_250
    times = times_of(phishing.phishing, items)
    assert times == sorted(times)
    assert sum(item.phishing for item in items if isinstance(item, phishing.Verdict)) == 548


def test_handbook_gives_labels_seven_days_later_across_its_files(folder: Path) -> None:
    rows = [
        ["1,2018-06-18 00:00:15,7,70,32.27,0,0", "2,2018-06-20 10:00:00,8,70,5.5,1,2"],
        ["3,2018-06-25 00:00:15,7,71,1.00,0,0"],
        ["4,2018-06-27 10:00:01,7,71,2.00,0,0"],
    ]
    for name, lines in zip(fraud_handbook.FILES, rows, strict=True):
        write(folder / name, HANDBOOK + "\n".join(lines) + "\n")
    items = list(fraud_handbook.history())
    kinds = "".join("e" if isinstance(item, fraud_handbook.Payment) else "l" for item in items)
    assert [item.tx_id for item in items] == [1, 2, 1, 3, 2, 4, 3, 4]
    assert kinds == "eelelell"
    times = times_of(fraud_handbook.fraud_handbook, items)
    assert times == sorted(times)
    assert times[2] - times[0] == 7 * 86_400_000
    assert [item.outcome for item in items if isinstance(item, fraud_handbook.Investigation)] == [
        False,
        True,
        False,
        False,
    ]
    assert fraud_handbook.fraud_handbook.events.key_of(items[0]) == "7"
