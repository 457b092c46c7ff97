"""The hot path's loops against each other and against River, in one interleaved run: features, predict, learn.

`make bench-kernels` prints a table and writes it into docs/performance.md. Two entities with four windows each make 32
features; the model is `StandardScaler | LogisticRegression`; each event is predicted, then learned. CPU time of this
process; all ways take the same block of events before any takes the next, so that whatever else the machine does hits
all of them alike. Whatever a way says is compared with what the first says, to the last bit.
"""

import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from river import linear_model, preprocessing

from bench import page
from features import FeatureSet, Profile, compiled, count, distinct, ewm, maximum, mean, proof, since_last, std
from learning import linear_compiled
from learning.fused import FusedModel, fused
from learning.vectors import matrix

EVENTS = int(os.environ.get("EVENTS", "40000"))
BLOCK = 200
DAY_MS = 86_400_000
WORKLOADS = {"1,250 profiles": (1_000, 250), "15 profiles": (10, 5)}


class Payment(msgspec.Struct, frozen=True):
    """An event."""

    customer: str
    terminal: str
    amount: float
    at: int


Predict = Callable[[Sequence[float]], float]
Learn = Callable[[Sequence[float], bool], None]
Stage = Callable[[Any], Any]


class Row(NamedTuple):
    """One loop, measured.

    Attributes:
        loop: what it does.
        way: how.
        us: CPU microseconds per event, median over the blocks.
        times: how many times as fast as the loop's first way, median over the blocks.
    """

    loop: str
    way: str
    us: float
    times: float


def payments(customers: int, terminals: int) -> list[Payment]:
    """Forty days; one event in a hundred comes up to ten minutes late."""
    chance, made = random.Random(1), []
    for number in range(EVENTS):
        at = 1_700_000_000_000 + 40 * DAY_MS * number // EVENTS
        if chance.random() < 0.01:
            at -= chance.randrange(600_000)
        who, where = f"c{chance.randrange(customers)}", f"t{chance.randrange(terminals)}"
        made.append(Payment(who, where, round(chance.lognormvariate(3, 1), 2), at))
    return made


def feature_set() -> FeatureSet:
    """For each entity count, mean and deviation in four windows, and four features more."""
    windows = ("1h", "1d", "7d", "30d")
    made: list[Any] = []
    for by in ((), ("terminal",)):
        options: dict[str, Any] = {"by": by, "local": bool(by)}
        made += [count(*windows, **options), mean("amount", *windows, **options), std("amount", *windows, **options)]
        made += [maximum("amount", "7d", **options), since_last(**options), ewm("amount", "1d", **options)]
        made.append(distinct("customer" if by else "terminal", "7d", **options))
    types = {"customer": str, "terminal": str, "amount": float, "at": int}
    return FeatureSet(made, types, "customer", "at")


def outcome(event: Payment) -> bool:
    """Something to learn."""
    return event.amount > 40


def river_model(names: Sequence[str]) -> tuple[Predict, Learn]:
    """River, asked and taught as it is without a stand-in."""
    river = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    return (
        lambda vector: float(river.predict_proba_one(dict(zip(names, vector, strict=True)))[True]),
        lambda vector, y: river.learn_one(dict(zip(names, vector, strict=True)), y),
    )


def fused_model(names: Sequence[str]) -> tuple[Predict, Learn]:
    """The stand-in, with the loops that are chosen now, asked and taught one by one."""
    ours = fused_stand_in(names)
    return ours.predict_vector, ours.learn_vector


def fused_stand_in(names: Sequence[str]) -> FusedModel:
    """The stand-in, with the loops that are chosen now. Raises RuntimeError where there is none."""
    ours = fused(preprocessing.StandardScaler() | linear_model.LogisticRegression(), names)
    if ours is None:
        message = "got no stand-in for StandardScaler | LogisticRegression; is this another version of River?"
        raise RuntimeError(message)
    return ours


def whole(compute: Callable[..., Any], predict: Predict, learn: Learn) -> Stage:
    """Features, prediction and lesson of each event of a block."""
    profiles: dict[str, Profile] = {}

    def loop(block: Sequence[Payment]) -> list[float]:
        said = []
        for event in block:
            vector, _ = compute(event, event.customer, event.at, profiles)
            said.append(predict(vector))
            learn(vector, outcome(event))
        return said

    return loop


def vectors(compute: Callable[..., Any]) -> Stage:
    """Features of each event of a block."""
    profiles: dict[str, Profile] = {}
    return lambda block: [compute(event, event.customer, event.at, profiles)[0] for event in block]


def measured(ways: dict[str, dict[str, Stage]], blocks: Sequence[Any]) -> Iterator[Row]:
    """Each way's stages over each block, the second half timed. Raises RuntimeError where two ways differ."""
    spent: dict[tuple[str, str], list[float]] = {}
    for number, block in enumerate(blocks):
        said: dict[str, str] = {}
        for way, stages in ways.items():
            for name, stage in stages.items():
                started = time.process_time()
                result = stage(block)
                if number >= len(blocks) / 2:
                    spent.setdefault((name, way), []).append((time.process_time() - started) / len(block) * 1e6)
                if said.setdefault(name, repr(result)) != repr(result):
                    message = f"{name}: {way} and {next(iter(ways))} do not say the same"
                    raise RuntimeError(message)
    for name in next(iter(ways.values())):
        base = spent[name, next(iter(ways))]
        for way in ways:
            times = statistics.median(a / b for a, b in zip(base, spent[name, way], strict=True))
            yield Row(name, way, statistics.median(spent[name, way]), times)


def rows(events: list[Payment], cache: Path) -> Iterator[Row]:
    """All loops over these events."""
    blocks = [events[at : at + BLOCK] for at in range(0, len(events), BLOCK)]
    features = feature_set()
    names, python = features.names, features._compute
    compiled.choose("on", [linear_compiled.prove, proof.prove], cache)
    fast = features._compiler.faster()
    yield from measured(
        {"Python": {"features": vectors(python)}, "compiled": {"features": vectors(fast)}},
        blocks,
    )
    models = {"River": river_model(names), "compiled": fused_model(names)}
    at_once = fused_stand_in(names)
    together = {"compiled": whole(fast, *fused_model(names))}
    compiled.choose("off", [], cache)  # which those that were made keep out of
    models["Python"] = fused_model(names)
    together["Python"] = whole(python, *fused_model(names))
    together["features in Python, River"] = whole(python, *river_model(names))
    vector = vectors(python)
    pairs = [list(zip(vector(block), map(outcome, block), strict=True)) for block in blocks]
    order = ("River", "Python", "compiled")
    stages = {way: {"predict": _predicting(models[way][0]), "learn": _learning(models[way][1])} for way in order}
    stages[f"compiled, {BLOCK} at once"] = {"predict": _predicting_all(at_once), "learn": _learning_all(at_once)}
    yield from measured(stages, pairs)
    loops = {way: {"all three": together[way]} for way in ("features in Python, River", "Python", "compiled")}
    yield from measured(loops, blocks)


def _predicting(predict: Predict) -> Stage:
    return lambda block: [predict(vector) for vector, _ in block]


def _learning(learn: Learn) -> Stage:
    def loop(block: Any) -> None:
        for vector, y in block:
            learn(vector, y)

    return loop


def _predicting_all(model: FusedModel) -> Stage:
    return lambda block: model.predict_vectors(_matrix(block))


def _learning_all(model: FusedModel) -> Stage:
    def loop(block: Any) -> None:
        if not model.learn_vectors(_matrix(block), np.array([y for _, y in block], dtype=np.float64)):
            message = "the stand-in left the lesson to River; is this another version of it?"
            raise RuntimeError(message)

    return loop


def _matrix(block: Any) -> Any:
    width = len(block[0][0])
    return matrix([vector for vector, _ in block], width)


_START = """
import resource, sys, time
from pathlib import Path
from features import compiled, proof
from learning import linear_compiled
def used():
    return resource.getrusage(resource.RUSAGE_SELF)
before = used()
compiled.choose("on", [linear_compiled.prove, proof.prove], Path(sys.argv[1]))
after = used()
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, (after.ru_maxrss - before.ru_maxrss) / 1024)
"""


def starts(cache: Path) -> Iterator[tuple[str, float, float]]:
    """CPU seconds and MB that the choice costs a process: the first one, and those after it."""
    for which in ("first start", "later starts"):
        done = subprocess.run([sys.executable, "-c", _START, str(cache)], check=True, capture_output=True, text=True)
        seconds, megabytes = map(float, done.stdout.split())
        yield which, seconds, megabytes


def table(found: dict[str, list[Row]], started: list[tuple[str, float, float]]) -> str:
    """The section of docs/performance.md."""
    lines = [
        f"{platform.machine()}, Python {platform.python_version()}; {EVENTS:,} events, the second half timed; CPU"
        " microseconds per event, and how many times as fast as the first row of its kind.",
        "",
        "| loop | way | " + " | ".join(f"{name}: us | times" for name in found) + " |",
        "|---|---|" + "---:|---:|" * len(found),
    ]
    for same in zip(*found.values(), strict=True):
        lines.append(
            f"| {same[0].loop} | {same[0].way} | " + " | ".join(f"{r.us:.1f} | {r.times:.1f}" for r in same) + " |"
        )
    lines += ["", "| compiled loops cost a process | CPU seconds | MB |", "|---|---:|---:|"]
    lines += [f"| {which} | {seconds:.1f} | {megabytes:.0f} |" for which, seconds, megabytes in started]
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        started = list(starts(Path(folder)))
        found = {name: list(rows(payments(*size), Path(folder))) for name, size in WORKLOADS.items()}
    section = table(found, started)
    print(section)
    page.write("bench-kernels", section)


if __name__ == "__main__":
    main()
