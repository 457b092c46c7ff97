"""Writes the training log as a point-in-time training set, Parquet or CSV: `headwater export`."""

import csv
import json
import os
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import click
import msgspec

from app import replay
from app.explain import EPOCH, Bar, bars, iso
from app.people import (
    broker_option,
    console,
    interruptible,
    json_option,
    pipeline_of,
    pipeline_option,
    print_json,
    run,
    settings_for,
    stderr,
)
from learning.records import Control, Example, Outcome
from pipelines.definition import Pipeline
from streaming.config import EngineConfig

ROWS = 20_000  # in a row group: what is held in memory, some 20 MB with 30 features
MISSING_PYARROW = (
    "a .parquet file is written with pyarrow, which is not installed; pip install -e '.[export]' (or pyarrow),"
    " or write CSV: --out NAME.csv"
)

Kind = Literal["text", "time", "bool", "float", "int", "probabilities"]
Cell = str | int | float | bool | dict[str, float] | None


class Column(msgspec.Struct, frozen=True):
    """One column of the file; times are milliseconds since 1970 UTC in a row."""

    name: str
    kind: Kind


class Period(msgspec.Struct, frozen=True):
    """Event times in ms from `begin` to before `end`; None is without bound."""

    begin: int | None = None
    end: int | None = None

    def __contains__(self, time_ms: int) -> bool:
        """Whether a time is in it.

        >>> [ms in Period(10, 20) for ms in (9, 10, 19, 20)]
        [False, True, True, False]
        """
        return (self.begin is None or time_ms >= self.begin) and (self.end is None or time_ms < self.end)


class Change(msgspec.Struct, frozen=True):
    """The last word on an outcome that changed, and where in the log it was said."""

    offset: int
    outcome: Outcome
    time_ms: int


class Exported(msgspec.Struct):
    """What was written.

    Attributes:
        rows: examples.
        corrected: rows whose outcome was corrected later.
        other_schema: rows whose vector was made by other feature definitions; their features are left empty.
        left_out: rows of negatives that are not learned, which have no vector; their features are left empty.
        log_begin: first offset that the log had.
        log_end: offset after its last.
    """

    rows: int = 0
    corrected: int = 0
    other_schema: int = 0
    left_out: int = 0
    log_begin: int = 0
    log_end: int = 0


class Moment(click.ParamType):
    """An ISO 8601 time, UTC where it says no offset, as milliseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The first millisecond that is not before the time."""
        if isinstance(value, int):
            return value
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"got {value!r}, expected an ISO time such as 2013-02-01 or 2013-02-01T06:30:00Z", param, ctx)
        return milliseconds(when)


def milliseconds(when: datetime) -> int:
    """Milliseconds since 1970, rounded up; a time without an offset is UTC.

    >>> milliseconds(datetime(1970, 1, 1)), milliseconds(datetime(1970, 1, 1, 0, 0, 0, 1, UTC))
    (0, 1)
    """
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return -((EPOCH - aware) // timedelta(milliseconds=1))


@click.command("export")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file: NAME.parquet or NAME.csv.")
@click.option("--from", "begin", type=Moment(), metavar="TIME", help="Events from this time on (ISO; UTC).")
@click.option("--to", "end", type=Moment(), metavar="TIME", help="Events before this time (ISO; UTC).")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@pipeline_option
@broker_option
@json_option
def command(  # noqa: PLR0917  # click passes by name
    out: Path,
    begin: int | None,
    end: int | None,
    force: bool,
    pipeline: str | None,
    broker: str | None,
    as_json: bool,
) -> None:
    """Write a point-in-time training set from the training log.

    One row for each example: the vector that was predicted with, as of just before its event, the prediction and its
    model version, the outcome and when it was known. The log is read as it is now.
    """
    check_target(out, force=force)
    if begin is not None and end is not None and begin >= end:
        message = f"got --from {iso(begin)} and --to {iso(end)}; expected --from before --to"
        raise click.UsageError(message)
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition, period = pipeline_of(settings), Period(begin, end)
    config = settings.engine_config(definition.name)
    started = time.monotonic()
    with interruptible(), bars(stderr) as bar:
        done = run(export(definition, config, out, period, bar))
    for warning in warnings_of(definition, out, done):
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(
            {
                "out": str(out),
                "from": None if begin is None else iso(begin),
                "to": None if end is None else iso(end),
                **msgspec.to_builtins(done),
                "columns": [column.name for column in columns(definition)],
                "bytes": out.stat().st_size,
                "seconds": round(time.monotonic() - started, 3),
            }
        )
    else:
        console.print(
            f"wrote {done.rows:,} examples to {out} ({out.stat().st_size:,} bytes)", markup=False, soft_wrap=True
        )


def warnings_of(pipeline: Pipeline, out: Path, done: Exported) -> Iterator[str]:
    """What whoever trains on the file should know."""
    if done.log_begin > 0:
        yield f"{pipeline.training_log_topic} begins at offset {done.log_begin:,}; what was before it is gone"
    if done.other_schema:
        yield f"{done.other_schema:,} rows were made by other feature definitions; their features are empty"
    if done.left_out:
        yield (
            f"{done.left_out:,} rows are negatives that are not learned (`kept` is false); their features are empty. A"
            f" model trained on the others gives too high probabilities{_remedy(pipeline.negatives)}"
        )
    if not done.rows:
        yield f"no example in this period; {out} has its columns and no row"


def _remedy(share: float) -> str:
    if share >= 1.0:  # it was less once, and the log does not say what
        return ""
    return (
        f": as the pipeline has negatives={share:g}, give each False the weight {1.0 / share:g}, or correct what comes"
        f" out: p / (p + (1 - p) / {share:g})"
    )


def check_target(out: Path, *, force: bool) -> None:
    """Raise for what would be found out only after the log was read."""
    if out.suffix not in (".parquet", ".csv"):
        message = f"got {str(out)!r}; expected a name that ends in .parquet or .csv"
        raise click.BadParameter(message, param_hint="--out")
    if not out.parent.is_dir():
        message = f"got {str(out)!r}, whose folder does not exist; create {str(out.parent)!r}, or name another file"
        raise click.BadParameter(message, param_hint="--out")
    if out.is_dir():
        message = f"got {str(out)!r}, which is a folder; expected a file"
        raise click.BadParameter(message, param_hint="--out")
    if out.exists() and not force:
        message = f"{out} is there already; name another file, or say --force to write over it"
        raise click.ClickException(message)
    if out.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401, PLC0415  # an extra
        except ImportError as error:
            raise click.ClickException(MISSING_PYARROW) from error


def columns(pipeline: Pipeline) -> list[Column]:
    """The columns of the file. A feature that is named as one of ours is written as `feature:<name>`."""
    outcome: Kind = {"regression": "float", "multiclass": "text"}.get(pipeline.task, "bool")  # type: ignore[assignment]
    ours = [
        Column("id", "text"),
        Column("key", "text"),
        Column("event_time", "time"),
        Column("label_time", "time"),
        Column("outcome", outcome),
        Column("prediction", "probabilities" if pipeline.task == "multiclass" else "float"),
        Column("version", "int"),
        Column("source", "text"),
        Column("schema", "text"),
        Column("offset", "int"),
        Column("corrected_outcome", outcome),
        Column("corrected_time", "time"),
        Column("kept", "bool"),
    ]
    taken = {column.name for column in ours}
    features = [f"feature:{name}" if name in taken else name for name in pipeline.feature_set.names]
    return [*ours, *(Column(name, "float") for name in features)]


async def export(pipeline: Pipeline, config: EngineConfig, out: Path, period: Period, bar: Bar) -> Exported:
    """Write the file from the log as it is now."""
    async with replay.opened(config, pipeline.training_log_topic) as log:
        return await write(pipeline, log, out, period, bar)


async def write(pipeline: Pipeline, log: replay.Topic, out: Path, period: Period, bar: Bar) -> Exported:
    """Write the file; it is there when it is whole, and not before."""
    done = Exported(log_begin=log.begin, log_end=log.end)
    changes = await corrections(log, period, bar("looking for corrections"))
    made = rows(pipeline, log, period, changes, done=done, progress=bar(f"writing {out.name}"))
    with replacing(out) as partial, writer(partial, out.suffix, columns(pipeline)) as sink:
        async with aclosing(made):
            batch: list[tuple[Cell, ...]] = []
            async for row in made:
                batch.append(row)
                if len(batch) == ROWS:
                    sink.write(batch)
                    batch = []
        if batch:
            sink.write(batch)
    return done


async def corrections(log: replay.Topic, period: Period, progress: replay.Progress) -> dict[str, Change]:
    """The last change of each outcome that changed. These are held in memory, and of the examples none."""
    changes: dict[str, Change] = {}
    async with aclosing(replay.lessons(log, progress=progress)) as lessons:
        async for offset, record in lessons:
            if isinstance(record, Control):
                continue
            changed = not isinstance(record, Example) or record.source == "correction"
            if changed and record.time_ms in period:
                changes[record.id] = Change(offset, record.outcome, record.label_time_ms)
    return changes


async def rows(
    pipeline: Pipeline,
    log: replay.Topic,
    period: Period,
    changes: Mapping[str, Change],
    *,
    done: Exported,
    progress: replay.Progress,
) -> AsyncGenerator[tuple[Cell, ...], None]:
    """A row for each example of the period, in the order of the log; counts them."""
    schema, nothing = pipeline.feature_set.schema, [None] * len(pipeline.feature_set.names)
    async with aclosing(replay.lessons(log, progress=progress)) as lessons:
        async for offset, record in lessons:
            if not isinstance(record, Example) or record.time_ms not in period:
                continue
            change = changes.get(record.id)
            if change is not None and change.offset <= offset:
                change = None  # this row is the correction itself, which says so in its source
            fits = record.kept and record.schema == schema and len(record.features) == len(nothing)
            done.rows += 1
            done.corrected += change is not None
            done.left_out += not record.kept
            done.other_schema += record.kept and not fits
            yield (*_ours(offset, record, change), *(record.features if fits else nothing))


def _ours(offset: int, record: Example, change: Change | None) -> tuple[Cell, ...]:
    return (
        record.id,
        record.key,
        record.time_ms,
        record.label_time_ms,
        record.outcome,
        record.prediction,
        record.version,
        record.source,
        record.schema,
        offset,
        None if change is None else change.outcome,
        None if change is None else change.time_ms,
        record.kept,
    )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A file beside it that takes its place at the end, and is gone where something went wrong."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(out)
    except OSError as error:
        message = f"cannot write {out}: {error.strerror or error}; make room or name another place with --out"
        raise click.ClickException(message) from error
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


class Sink(Protocol):
    """Something that rows are written to."""

    def write(self, batch: Sequence[tuple[Cell, ...]]) -> None:
        """Write these rows, and hold on to none."""


@contextmanager
def writer(path: Path, suffix: str, schema: Sequence[Column]) -> Iterator[Sink]:
    """What writes files of this kind."""
    if suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            yield CsvSink(file, schema)
        return
    from pyarrow import parquet  # noqa: PLC0415  # an extra

    arrow = arrow_schema(schema)
    with parquet.ParquetWriter(path, arrow, compression="zstd") as file:
        yield ParquetSink(file, arrow)


class CsvSink:
    """CSV by RFC 4180: empty for none, numbers as Python reads them back exactly, times in ISO 8601."""

    def __init__(self, file: Any, schema: Sequence[Column]) -> None:
        self._kinds = [column.kind for column in schema]
        self._writer = csv.writer(file)
        self._writer.writerow([column.name for column in schema])

    def write(self, batch: Sequence[tuple[Cell, ...]]) -> None:
        """Write these rows."""
        self._writer.writerows([_text(c, k) for c, k in zip(row, self._kinds, strict=True)] for row in batch)


def _text(cell: Cell, kind: Kind) -> str:
    if cell is None:
        return ""
    if kind == "time":
        return iso(int(cell))  # type: ignore[arg-type]  # a time is a number
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return json.dumps(cell) if isinstance(cell, dict) else str(cell)


class ParquetSink:
    """Parquet, a row group for each batch."""

    def __init__(self, file: Any, schema: Any) -> None:
        self._file = file
        self._schema = schema

    def write(self, batch: Sequence[tuple[Cell, ...]]) -> None:
        """Write these rows."""
        import pyarrow  # noqa: PLC0415  # an extra

        cells = zip(*(map(_pairs, row) for row in batch), strict=True)
        arrays = [_array(column, field) for column, field in zip(cells, self._schema, strict=True)]
        self._file.write_batch(pyarrow.record_batch(arrays, schema=self._schema), row_group_size=len(batch))


def _array(cells: Sequence[Any], field: Any) -> Any:
    import pyarrow  # noqa: PLC0415  # an extra

    try:
        return pyarrow.array(cells, type=field.type)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        message = (
            f"column {field.name} cannot be written as {field.type}: {error}. The log has examples of another kind than"
            " the pipeline's; choose a period without them (--from, --to), or write CSV"
        )
        raise click.ClickException(message) from error


def _pairs(cell: Cell) -> Any:
    """As Arrow takes it: a map is a list of pairs."""
    return list(cell.items()) if isinstance(cell, dict) else cell


def arrow_schema(schema: Sequence[Column]) -> Any:
    """The columns as Arrow has them."""
    import pyarrow  # noqa: PLC0415  # an extra

    kinds = {
        "text": pyarrow.string(),
        "time": pyarrow.timestamp("ms", tz="UTC"),
        "bool": pyarrow.bool_(),
        "float": pyarrow.float64(),
        "int": pyarrow.int64(),
        "probabilities": pyarrow.map_(pyarrow.string(), pyarrow.float64()),
    }
    return pyarrow.schema([pyarrow.field(column.name, kinds[column.kind]) for column in schema])
