"""The sections of docs/performance.md that benchmarks write, each between two marks that name its make target."""

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"

Section = Callable[[], list[str]]
"""Makes some paragraphs and tables."""


def write(target: str, section: str, page: Path = PAGE) -> None:
    """Put a section where the page has the last one of this make target. Raises RuntimeError where it has none."""
    begin, end = f"<!-- begin: make {target} -->", f"<!-- end: make {target} -->"
    text = page.read_text("utf-8")
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        message = f"{page} has no lines {begin} and {end} for the table to stand between; put them back"
        raise RuntimeError(message)
    page.write_text(f"{before}{begin}\n{section}\n{end}{after}", "utf-8")


def wanted(sections: Mapping[str, Section], only: str | None) -> list[Section]:
    """The section of this name, or all."""
    return list(sections.values()) if only is None else [sections[only]]


def report(target: str, sections: Iterable[Section], *packages: str, keep: bool) -> None:
    """Make the sections one after the other, print each when it is made, and write them to the page if it is to keep.

    Args:
        target: the make target.
        sections: what makes them.
        packages: those whose versions are said.
        keep: whether the page is written.
    """
    made = [caption(f"make {target}", *packages)]
    print(made[0])
    for section in sections:
        said = section()
        print("\n\n".join(["", *said]), flush=True)
        made += said
    if keep:
        write(target, "\n\n".join(made))


def caption(command: str, *packages: str) -> str:
    """What was run, and where: machine, cores, and versions of Python and of these packages."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"`{command}`: {machine}{', ' if versions else ''}{versions}."


def rows(head: Sequence[str], body: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table in Markdown; its first columns are words, the others numbers.

    >>> print(rows(["keys", "us"], [["1,000", "7.5"]]))
    | keys | us |
    |---|---:|
    | 1,000 | 7.5 |
    """
    rule = "|" + "---|" * words + "---:|" * (len(head) - words)
    return "\n".join([_row(head), rule, *map(_row, body)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
