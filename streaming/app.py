"""The Faust application with the engine in place of Faust's consumer, conductor, commit and recovery."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import faust
import mode
from aiokafka import TopicPartition
from faust.auth import Credentials, SASLCredentials, SSLCredentials
from faust.types import TP
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from streaming.checkpoint import Step, no_step
from streaming.config import EngineConfig
from streaming.engine import Engine
from streaming.errors import EngineError
from streaming.security import Security
from streaming.tables import StateTableManager
from streaming.telemetry import Metrics
from streaming.transport import Transport

log = logging.getLogger(__name__)

EXIT_FAILED = 70
PATIENCE = 10.0  # seconds for what comes after the last checkpoint
REBALANCE_TIMEOUT = 300.0  # seconds that a group waits for a member that is still opening what it got before


def credentials(security: Security) -> Credentials | None:
    """What Faust's own consumer and producer say to the broker: the same as the engine's clients."""
    if security.sasl:
        options = security.options()
        return SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=security.context,
        )
    return None if security.context is None else SSLCredentials(security.context)


class LogChannel(faust.Channel[Any]):
    """A channel that runs while the flow of events is suspended.

    Faust suspends and *clears* its ordinary channels at every rebalance. Lessons must be neither: recovery waits
    for them before it lets events flow, and a lost lesson would leave this worker with another model.
    """

    @property
    def queue(self) -> Any:
        """The queue, outside Faust's flow control."""
        if self._queue is None:
            self._queue = ThrowableQueue(maxsize=4, flow_control=FlowControlEvent(initially_suspended=False))
        return self._queue


class StreamApp(faust.App):
    """A Faust app whose rebalances open and close units."""

    def __init__(
        self, config: EngineConfig, *, log_topic: str, metrics: Metrics, step: Step = no_step, **options: Any
    ) -> None:
        self.engine = Engine(config, log_topic=log_topic, metrics=metrics, fatal=self.fail, step=step)
        session = config.session_timeout
        super().__init__(
            config.app_id,
            broker="kafka://" + ";kafka://".join(config.bootstrap.split(",")),
            broker_credentials=credentials(config.security),
            value_serializer="raw",
            topic_allow_declare=False,
            topic_disable_leader=True,
            TableManager=StateTableManager,
            table_standby_replicas=0,
            recovery_consistency_check=False,
            broker_session_timeout=session,
            broker_heartbeat_interval=session / 4,
            broker_rebalance_timeout=max(REBALANCE_TIMEOUT, session),
            stream_wait_empty=False,  # a closed unit refuses what is still on its way
            broker_request_timeout=max(config.request_timeout, session),  # Faust refuses a longer session
            broker_max_poll_interval=180.0,
            stream_recovery_delay=0.0,
            web_in_thread=False,
            **options,
        )

        self.failure: BaseException | None = None
        self._opening: asyncio.Future[None] | None = None
        self.companions: list[mode.Service] = []
        """Services that run from the first moment to the last, also while recovering."""
        self.engine.lessons = LogChannel(self, maxsize=4)
        self.engine.generation = lambda: self.consumer_generation_id
        self.engine.reached = self._reached

    def _create_directories(self) -> None:
        """Create none: all state is in Kafka."""

    def _reached(self, tp: TopicPartition, mark: int) -> int:
        consumer: Any = self.consumer
        reached: int = consumer.reached(tp, mark)
        return reached

    def on_init_dependencies(self) -> Iterable[Any]:
        """Without Faust's monitor, which nobody asks: it counts chunks, five calls of it for each."""
        services = super().on_init_dependencies()  # sensors are looked up when this is gone through
        self.sensors.remove(self.monitor)
        return services

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        try:
            await self.engine.close(save=self.failure is None)
        except Exception as exc:  # noqa: BLE001  # whatever it is, the worker must not go on with this memory
            await self.fail(exc)
        await super()._on_partitions_revoked(revoked)

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        if self.failure is not None or self.should_stop:
            return
        self._opening = asyncio.ensure_future(
            self.engine.open({(tp.topic, tp.partition) for tp in assigned}, self._commit)
        )
        try:
            await self._opening
        except asyncio.CancelledError:  # told to stop meanwhile
            return
        except Exception as exc:  # noqa: BLE001  # a half-open engine must not be fed
            await self.fail(exc)
            return
        await super()._on_partitions_assigned(assigned, generation_id)

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit through the group member, so that a member of an old generation is refused."""
        thread: Any = self.consumer._thread  # type: ignore[attr-defined]
        await thread.call_thread(thread._ensure_consumer().commit, dict(offsets))

    async def on_start(self) -> None:
        """Start the companions first. One that cannot start ends the worker before it has joined the group."""
        try:
            for companion in self.companions:
                await self.add_runtime_dependency(companion)
        except EngineError as exc:
            await self.fail(exc)
            return
        await super().on_start()

    async def on_stop(self) -> None:
        """Last checkpoint before the consumer leaves the group."""
        if self._opening is not None and not self._opening.done():
            # Opening waits for the learn agent, which is about to be stopped.
            self._opening.cancel()
            await asyncio.wait([self._opening])
        try:
            await self.engine.close(save=self.failure is None)
        except Exception as exc:  # noqa: BLE001  # whatever it is, stopping goes on
            self.failure = self.failure or exc
            log.error("the last checkpoint failed; what it held will be done again: %s", exc)  # noqa: TRY400
        # What is left to do needs the broker, and is worth nothing without it.
        asyncio.get_running_loop().call_later(PATIENCE, self._leave)
        await super().on_stop()
        await self.engine.stop()

    def _leave(self) -> None:
        if self.failure is not None:
            end_failed(self.failure)
        log.warning("stopping took more than %.0f s; everything is saved, so the worker ends at once", PATIENCE)
        os._exit(0)

    async def fail(self, exc: BaseException) -> None:
        """End the worker: nothing in memory may be trusted any more."""
        # A traceback is for mistakes of this program; the engine's own errors say what to do.
        log.critical("the worker ends: %s", exc, exc_info=None if isinstance(exc, EngineError) else exc)
        self.failure = self.failure or exc
        for unit in self.engine.units():
            unit.close()
        # A clean stop needs the broker; if it takes too long, end all the same.
        asyncio.get_running_loop().call_later(PATIENCE, end_failed, self.failure)
        # Faust logs the exception that is being handled; in a task of its own there is none, since it is logged above.
        await asyncio.create_task(self.crash(exc))


def end_failed(failure: BaseException, more: Callable[[], str] = str) -> None:
    """End this process at once; why is the last that it says, also where a clean stop took too long."""
    sys.stderr.write(f"\nError: {failure}\n")
    with contextlib.suppress(Exception):  # what it says is an addition
        sys.stderr.write(more())
    sys.stderr.flush()
    os._exit(EXIT_FAILED)


def run(app: StreamApp, *, loglevel: str = "INFO", more: Callable[[], str] = str) -> None:
    """Run the app as a worker process until it is told to stop.

    Exits with 0 when it was told to stop, else with another code and what went wrong as its last words. `more` is asked
    after a failure for what else there is to say.
    """
    worker = faust.Worker(app, loglevel=loglevel, quiet=False, redirect_stdouts=False)
    worker.spinner = None  # from WARNING on it would turn with every message of DEBUG, so each of these would be made
    try:
        worker.execute_from_commandline()
    finally:
        # Faust's own consumer may crash too, which is said nowhere but in its log.
        failure = app.failure or app.crash_reason or worker.crash_reason
        if failure is not None:
            end_failed(failure, more)  # Faust's own code for a crash can be 0
