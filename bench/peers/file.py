"""A bare River loop over a file, without Kafka: the limit of what one process can do in plain Python."""

from bench.peers.work import Bare, Meter, Order, Work, order

SOURCE, TARGET = "source.jsonl", "target.jsonl"


def run(told: Order) -> None:
    """Read, predict, learn and write, line by line."""
    work, meter = Work(told.pipeline), Meter(told.warm)
    step = Bare(work).step
    with (told.folder / SOURCE).open("rb") as source, (told.folder / TARGET).open("wb") as target:
        for line in source:
            said = step(line[:-1])
            if said is not None:
                target.write(said + b"\n")
                meter.event()
    meter.report(work)


if __name__ == "__main__":
    run(order())
