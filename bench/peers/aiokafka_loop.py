"""A bare aiokafka and River loop without any safety: state in memory only, offsets committed by the clock.

After aiokafka's documentation: `getmany` for many records at once, `send` without waiting for each delivery. Tuned: a
linger and large batches, as a send of each record alone would cost several times as much.
"""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.peers.work import Bare, Meter, Order, Work, order


async def run(told: Order) -> None:
    """Consume, predict, learn and produce until all events are done and all predictions are with the broker."""
    work, meter = Work(told.pipeline), Meter(told.warm)
    step = Bare(work).step
    consumer = AIOKafkaConsumer(
        told.source,
        bootstrap_servers=told.broker,
        group_id="bare",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4_000_000,
    )
    producer = AIOKafkaProducer(bootstrap_servers=told.broker, linger_ms=20, max_batch_size=900_000)
    await producer.start()
    await consumer.start()
    try:
        while meter.events < told.events:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=1000)).values():
                for record in records:
                    said = step(record.value)
                    if said is not None:
                        await producer.send(told.target, said, record.key)
                        meter.event()
        await producer.flush()
        meter.report(work)
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(run(order()))
