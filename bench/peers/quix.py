"""The same on Quix Streams: state in RocksDB with a changelog, at least once or exactly once.

After its documentation: `apply(..., stateful=True)` and `to_topic`. State belongs to the record's key, so profile and
waiting vectors of a card are found under the card. Tuned: bytes in and out, so that nothing is encoded twice, and the
state's bytes too; a linger and large batches. It commits every five seconds, its default.
"""

from quixstreams import Application, State

from bench.peers.work import Meter, Order, Work, decode_waiting, encode_waiting, order

PROFILE = "profile"


def run(told: Order) -> None:
    """Until so many predictions are made, and the last checkpoint is committed."""
    work, meter = Work(told.pipeline), Meter(told.warm)
    app = Application(
        broker_address=told.broker,
        consumer_group="quix",
        processing_guarantee=told.guarantee or "exactly-once",
        auto_offset_reset="earliest",
        state_dir=told.folder / "state",
        consumer_extra_config={"max.partition.fetch.bytes": 4_000_000},
        producer_extra_config={"linger.ms": 20, "batch.size": 900_000},
        loglevel="WARNING",
    )

    def step(value: bytes, state: State) -> bytes | None:
        is_event, key, name, item = work.read(value)
        if not is_event:
            waiting = state.get_bytes(name)
            state.delete(name)
            work.learn(item, decode_waiting(waiting))
            return None
        vector, profile = work.vector_from(item, key, state.get_bytes(PROFILE))
        state.set_bytes(PROFILE, profile)
        state.set_bytes(name, encode_waiting(vector))
        said = work.predict(item, key, name, vector)
        meter.event()
        return said

    source = app.topic(told.source, key_deserializer="bytes", value_deserializer="bytes")
    target = app.topic(told.target, key_serializer="bytes", value_serializer="bytes")
    frame = app.dataframe(source).apply(step, stateful=True)
    frame = frame.filter(lambda said: said is not None)
    frame.to_topic(target)
    app.run(count=told.events, collect=False)
    meter.report(work)


if __name__ == "__main__":
    run(order())
