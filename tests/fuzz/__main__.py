"""The long version: `python -m tests.fuzz --inputs 1000000 --seed 1`; with `--kafka`, through a worker process."""

import argparse
import asyncio
import logging
import pprint
import sys
import time
from random import Random

from tests.fuzz import kafka
from tests.fuzz.inputs import Maker
from tests.fuzz.pipelines import PIPELINES
from tests.fuzz.run import Figures, Slots, batches, failing, live, memory, smallest, try_snapshot, try_watch
from tests.fuzz.worker import Broken

BATCHES, LARGEST_BATCH, SNAPSHOTS, MONITORS = 30, 60, 20, 1
MEMORY = 1 << 30  # bytes beyond those of the first lives


def say(words: str) -> None:
    """A line, at once."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def one_life(name: str, seed: int, number: int, figures: Figures) -> None:
    """One life of a worker, and some snapshots. Raises Broken, with what reproduces it said."""
    pipeline = PIPELINES[name]
    chance = Random(f"{seed}-{name}-{number}")
    fed = batches(Maker(chance, pipeline, largest=1_100_000), BATCHES, LARGEST_BATCH)
    try:
        figures.add(asyncio.run(live(pipeline, fed)), fed)
    except Broken as error:
        words = str(error)
        say(f"broken: {words}\nleaving out what it does not take ...")
        kind = words.split(" ", maxsplit=1)[0]
        less = smallest(lambda some: (failing(pipeline, some) or "").split(" ")[0] == kind, fed)
        say(f"asyncio.run(live(PIPELINES[{name!r}], {pprint.pformat(less, width=118)}))")
        raise
    slots = Slots(chance, pipeline)
    for _ in range(SNAPSHOTS):
        manifest, chunks = slots.damaged()
        try:
            figures.became[f"snapshot: {try_snapshot(pipeline, manifest, chunks)}"] += 1
        except Broken:
            say(f"try_snapshot(PIPELINES[{name!r}], {manifest!r}, {chunks!r})")
            raise
    figures.inputs["snapshots"] += SNAPSHOTS
    for _ in range(MONITORS):
        data = slots.monitors()
        try:
            try_watch(data)
        except Exception:
            say(f"try_watch({data!r})")
            raise
    figures.inputs["monitors"] += MONITORS


def run(names: list[str], inputs: int, seed: int, first: int, lives: int | None) -> int:
    """Lives until there were so many inputs; 1 where an invariant broke."""
    figures, started, said = Figures(), time.monotonic(), 0.0
    base, number = 0, first
    while figures.total < inputs if lives is None else number < first + lives:
        for name in names:
            try:
                one_life(name, seed, number, figures)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is what the fuzzer looks for
                say(f"{type(error).__name__}: {error}")
                say(f"again: python -m tests.fuzz --pipeline {name} --seed {seed} --life {number}")
                return 1
        number += 1
        base = base or memory()
        if memory() > base + MEMORY:
            say(f"the process has grown from {base >> 20} to {memory() >> 20} MB")
            return 1
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"{figures.total:,} of {inputs:,} inputs, {said - started:.0f} s, {memory() >> 20} MB")
    took = time.monotonic() - started
    say(f"{figures.total:,} inputs in {took:.0f} s, {memory() >> 20} MB at most; none broke an invariant")
    say(f"slowest chunk {figures.slowest:.3f} s")
    for what in (figures.inputs, figures.became):
        say("".join(f"\n  {count:>9,}  {key}" for key, count in sorted(what.items())))
    return 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pipeline", choices=PIPELINES, help="one alone")
    parser.add_argument("--life", type=int, help="this one alone")
    parser.add_argument("--kafka", action="store_true", help="through a worker process on a real Kafka")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # each refused record is said, a million times
    if options.kafka:
        return kafka.main(options.inputs, options.seed)
    names = [options.pipeline] if options.pipeline else list(PIPELINES)
    return run(names, options.inputs, options.seed, options.life or 0, None if options.life is None else 1)


if __name__ == "__main__":
    sys.exit(main())
