"""Finds the files of the optional data streams, which are too large or too freely licensed to be part of the package.

They lie in the folder that HEADWATER_DATA names, else in ../shared/data beside the repository, else in ./data.
"""

import csv
import gzip
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import DefinitionError

VARIABLE = "HEADWATER_DATA"


def data_file(name: str) -> Path:
    """The file. Raises DefinitionError that says where it was looked for."""
    places = _places()
    for place in places:
        if (place / name).is_file():
            return place / name
    looked = ", ".join(str(place) for place in places)
    message = f"cannot find data file {name} in {looked}; put it into one of them, or set {VARIABLE} to its folder"
    raise DefinitionError(message)


def rows(name: str) -> Iterator[dict[str, str]]:
    """The rows of a gzipped CSV file with a header."""
    with gzip.open(data_file(name), "rt", encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _places() -> list[Path]:
    if folder := os.environ.get(VARIABLE):
        return [Path(folder)]
    return [Path(__file__).resolve().parents[2] / "shared" / "data", Path.cwd() / "data"]
