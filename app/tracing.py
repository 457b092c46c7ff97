"""Sends traces to an OpenTelemetry collector: `HEADWATER_TRACE_SHARE` above 0, and the extra `otel`.

Where to send them is for OpenTelemetry's own variables to say, as `OTEL_EXPORTER_OTLP_ENDPOINT`.
"""

import asyncio
from typing import TYPE_CHECKING

from mode import Service

from streaming.errors import StartupError

if TYPE_CHECKING:
    from agents.tracing import Tracer


def tracer(pipeline: str, share: float, worker: str) -> "Tracer":
    """A tracer whose spans are exported in batches, by a thread of its own. Raises StartupError without the extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        from agents.tracing import Tracer  # noqa: PLC0415  # it imports OpenTelemetry, which the others do without
    except ImportError as error:
        message = (
            f"got HEADWATER_TRACE_SHARE={share}, and traces need OpenTelemetry ({error}); install the extra with"
            " `pip install -e '.[otel]'`, or set it to 0"
        )
        raise StartupError(message) from error
    resource = Resource.create({"service.name": "headwater", "service.instance.id": worker})
    made = Tracer(pipeline, share, resource)
    made.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


class Flush(Service):
    """Sends what is left when the worker ends."""

    def __init__(self, tracer: "Tracer") -> None:
        super().__init__()
        self._tracer = tracer

    async def on_stop(self) -> None:
        """Wait for the last batch; a collector that does not answer costs OpenTelemetry's own timeout."""
        await asyncio.to_thread(self._tracer.provider.shutdown)
