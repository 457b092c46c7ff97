"""Fuzzed records through a whole worker process on a real Kafka: what was consumed is all accounted for."""

import asyncio
import collections
import itertools
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from app.status import scrape
from learning.records import Control, Prediction, decode_log
from streaming.brokers import LocalKafka, free_port
from tests.chaos.run import PARTITIONS, Run
from tests.fuzz.inputs import Maker
from tests.fuzz.worker import Broken, hold

PATIENCE = 900.0  # seconds for all of it
NOW = 1_750_000_000_000  # ms, later than anything that is made


async def send(run: Run, made: list[tuple[str, tuple[Any, ...]]]) -> collections.Counter[str]:
    """Write the records, to any partition, since a worker takes a record where it finds it; how many went where."""
    producer = AIOKafkaProducer(bootstrap_servers=run.config.bootstrap, linger_ms=5, max_request_size=4_000_000)
    await producer.start()
    sent: collections.Counter[str] = collections.Counter()
    waiting = []
    for topic, (key, value, stamp, headers) in made:
        partition = 0 if topic == run.pipeline.training_log_topic else (key or b"\0")[0] % PARTITIONS
        # The broker takes no time before 1970 nor one to come, the client no record without both key and value.
        at = min(max(stamp, 0), NOW)
        name = b"" if key is None and value is None else key
        waiting.append(await producer.send(topic, value, name, partition, at, list(headers)))
        sent[topic] += 1
    await asyncio.gather(*waiting)
    await producer.stop()
    return sent


def total(samples: Any, name: str) -> int:
    """A counter over all its labels."""
    return int(sum(value for key, value in samples.items() if key == name or key.startswith(name + "{")))


async def fuzz(run: Run, inputs: int, seed: int) -> None:
    """Raises Broken."""
    await run.prepare()
    port = free_port()
    worker = run.start(HEADWATER_WEB_PORT=str(port), HEADWATER_DEAD_LETTER_LIMIT="1", HEADWATER_SNAPSHOT_EXAMPLES="200")
    p, maker = run.pipeline, Maker(Random(seed), run.pipeline, largest=900_000)
    of_events, of_labels = (p.events.topic, maker.events), (p.labels.topic, maker.labels)
    # Fewer for the log, since each rollback reads it again.
    kinds = itertools.cycle([of_events, of_labels] * 4 + [(p.training_log_topic, maker.lessons)])
    made = [(topic, part) for (topic, make), _ in zip(kinds, range(inputs // 50), strict=False) for part in make(50)]
    sent = await send(run, made)
    url, end = f"http://127.0.0.1:{port}/metrics", time.monotonic() + PATIENCE
    samples: Any = {}
    while time.monotonic() < end:
        await asyncio.sleep(1)
        hold(worker.poll() is None, f"the worker ended: {run.last_words()}")
        samples = await scrape(url) or {}
        lag = total(samples, "consumer_lag")
        if total(samples, "events_total") >= sent[p.events.topic] and not lag and total(samples, "model_lag") == 0:
            break
    await asyncio.sleep(6)  # for what is known to be read to its end, and the last checkpoint
    samples = await scrape(url) or {}
    predictions, letters = await run.read(p.predictions_topic), await run.read(p.dead_letters_topic)
    log = await run.read(p.training_log_topic)
    hold(worker.poll() is None, f"the worker ended: {run.last_words()}")
    by_topic = collections.Counter(dict(record.headers)["topic"].decode() for record in letters)
    places = {tuple(dict(r.headers)[name] for name in ("topic", "partition", "offset")) for r in letters}
    dropped = total(samples, "duplicate_events_total")
    say = sys.stdout.write
    say(f"sent {dict(sent)}\n")
    say(f"predicted {len(predictions)}, dropped as repeated {dropped}, dead letters {dict(by_topic)}\n")
    hold(len(places) == len(letters), "a record is two dead letters")
    hold(total(samples, "dead_letters_total") == len(letters), "dead letters not as counted")
    hold(total(samples, "predictions_total") == len(predictions), "predictions not as counted")
    consumed = total(samples, "events_total")
    hold(consumed == sent[p.events.topic], f"consumed {consumed} of {sent[p.events.topic]} events")
    hold(consumed == len(predictions) + by_topic[p.events.topic] + dropped, "events: consumed is not what came of them")
    for record in predictions:
        msgspec.json.decode(record.value, type=Prediction)
    kinds_of_log: collections.Counter[str] = collections.Counter()
    for record in log:
        try:
            kinds_of_log["control" if isinstance(decode_log(record.value or b""), Control) else "example"] += 1
        except msgspec.DecodeError:
            kinds_of_log["none"] += 1
    say(f"in the log {dict(kinds_of_log)}; learned {total(samples, 'training_examples_total')}\n")
    outcomes = {key: int(value) for key, value in samples.items() if key.startswith("labels_total")}
    say(f"labels {outcomes}\n")
    hold(by_topic[p.training_log_topic] == total(samples, "model_errors_total"), "errors of the log not as reported")
    worker.terminate()
    hold(await asyncio.to_thread(worker.wait, 60) == 0, f"the worker did not end well: {run.last_words()}")
    again = run.start(HEADWATER_WEB_PORT=str(port), HEADWATER_DEAD_LETTER_LIMIT="1")
    for _ in range(60):
        await asyncio.sleep(1)
        found = await scrape(url)
        if found is not None and total(found, "model_version") == total(samples, "model_version"):
            break
    hold(again.poll() is None, f"a worker does not start from what the first one left: {run.last_words()}")
    say("a second worker starts from it\n")


def main(inputs: int, seed: int) -> int:
    """Run it on a Kafka of its own; 1 where an invariant broke."""
    with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder) / "kafka") as broker:
        run = Run(broker.bootstrap, Path(folder))
        try:
            asyncio.run(fuzz(run, inputs, seed))
        except Broken as error:
            sys.stdout.write(f"broken: {error}\nagain: python -m tests.fuzz --kafka --inputs {inputs} --seed {seed}\n")
            return 1
        finally:
            run.end()
    return 0
