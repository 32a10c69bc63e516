"""Spans, recorded by OpenTelemetry and sent to a collector. Loaded only where one is named.

What is under way never waits for the collector: spans that end are put into a bounded queue, which
one thread empties. What does not fit, or cannot be sent in time, is lost, and the log says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Literal, Self

import requests
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.version import __version__ as SDK_VERSION  # noqa: N812

from config.clock import Clock, SystemClock
from config.ids import random_text
from config.release import release
from config.sections import TracingSettings
from config.values import Role

_log = logging.getLogger("config.spans")

Kind = Literal["server", "producer", "consumer", "client"]
Value = str | int | None

_KINDS: Final[Mapping[Kind, api.SpanKind]] = {
    "server": api.SpanKind.SERVER,
    "producer": api.SpanKind.PRODUCER,
    "consumer": api.SpanKind.CONSUMER,
    "client": api.SpanKind.CLIENT,
}
_KNOWN_FLAGS: Final = api.TraceFlags.SAMPLED | api.TraceFlags.RANDOM_TRACE_ID

_QUEUE: Final = 2_048
_BATCH: Final = 512
_SEND_AFTER_MS: Final = 1_000
_EXPORT_SECONDS: Final = 5.0
_FLUSH_SECONDS: Final = 2.0
"""How long a process that stops waits for its last spans to be taken."""

_MAX_TEXT: Final = 1_024
_SAY_SECONDS: Final = 60.0


class Span:
    """Something under way, from now to `end`, or to the end of a `with` block.

    An error that leaves the block is recorded by its kind alone: its text is for the log.

    Attributes:
        trace: what goes on from this span goes on from this trace; see `config.tracing`.
    """

    def __init__(self, tracer: Tracer, span: api.Span, trace: str) -> None:
        self._tracer = tracer
        self._span = span
        self.trace = trace

    def child(self, name: str, kind: Kind, attributes: Mapping[str, Value]) -> Span:
        """Begin a span that goes on from this one."""
        return self._tracer.begin(name, kind, self.trace, attributes)

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes; one that is None is left out. Nothing, once it is over."""
        if self._span.is_recording():
            self._span.set_attributes(_known(attributes))

    def fail(self, kind: str, why: str | None = None) -> None:
        """Say that it failed: `kind` for programs, one of a few; `why` for people."""
        self.note({"error.type": kind})
        if self._span.is_recording():
            self._span.set_status(api.StatusCode.ERROR, why)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the current span of OpenTelemetry, in this thread and what it awaits."""
        with api.use_span(self._span, record_exception=False, set_status_on_exception=False):
            yield

    def end(self) -> None:
        """Say that it is over; saying it again changes nothing."""
        if self._span.is_recording():
            self._span.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, by an error if one leaves the block."""
        if kind is not None:
            self.fail(kind.__name__)
        self.end()


class Tracer:
    """Records the spans of one process, as its settings say. Made after any fork."""

    def __init__(self, settings: TracingSettings, role: Role) -> None:
        _speak_seldom(SystemClock())
        session = requests.Session()
        # No proxy and no password that the environment happens to name.
        session.trust_env = False
        self._exporter = OTLPSpanExporter(
            f"{settings.endpoint}/v1/traces",
            timeout=_EXPORT_SECONDS,
            compression=Compression.Gzip,
            session=session,
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=_resource(settings.service_name, role),
            # It would wait for half a minute.
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attribute_length=_MAX_TEXT),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=_QUEUE,
                max_export_batch_size=_BATCH,
                schedule_delay_millis=_SEND_AFTER_MS,
            )
        )
        self._tracer = self._provider.get_tracer("gateway", release())

    def begin(
        self, name: str, kind: Kind, trace: str | None, attributes: Mapping[str, Value]
    ) -> Span:
        """Begin a span.

        Args:
            name: what is done, one of a few.
            kind: which side of what it is.
            trace: what it goes on from, and whether it is recorded; None or empty begins a trace,
                of which the settings say how many are recorded.
            attributes: as semantic conventions name them; ours begin with `gateway.`.
        """
        span = self._tracer.start_span(
            name, _context(trace), _KINDS[kind], _known(attributes), record_exception=False
        )
        return Span(self, span, _text(span.get_span_context(), trace or ""))

    def close(self) -> None:
        """Send what is left, for a moment; what is not taken by then is lost."""
        flushing = threading.Thread(target=self._provider.shutdown, name="flush", daemon=True)
        flushing.start()
        flushing.join(_FLUSH_SECONDS)
        if flushing.is_alive():
            _log.warning("tracing.not_flushed")
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def current(trace: str) -> Iterator[None]:
    """Make `trace` current for OpenTelemetry, where its span itself is recorded elsewhere."""
    with api.use_span(api.get_current_span(_context(trace))):
        yield


def _context(trace: str | None) -> Context:
    """Return a context that goes on from `trace`, or from nothing, whatever is current."""
    if not trace:
        return Context()
    parent, _, state = trace.partition(" ")
    _, trace_id, span_id, flags = parent.split("-")
    context = api.SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=api.TraceFlags(int(flags, 16)),
        trace_state=api.TraceState.from_header([state]) if state else None,
    )
    return api.set_span_in_context(api.NonRecordingSpan(context), Context())


def _text(context: api.SpanContext, before: str) -> str:
    """Return the trace of a span that goes on from `before`."""
    if not context.is_valid:
        # The library was told to record nothing, by a variable of its own.
        return before
    state = before.partition(" ")[2]
    flags = context.trace_flags & _KNOWN_FLAGS
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
    return f"{parent} {state}" if state else parent


def _known(attributes: Mapping[str, Value]) -> dict[str, str | int]:
    return {name: value for name, value in attributes.items() if value is not None}


def _resource(service: str, role: Role) -> Resource:
    return Resource(
        {
            "service.name": f"{service}-{role}",
            "service.version": release(),
            "service.instance.id": random_text(12),
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": SDK_VERSION,
        }
    )


class _Seldom(logging.Handler):
    """Passes on what the library says of its troubles: one line a minute, and how many it held."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._next = 0.0
        self._held = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Pass `record` on, or count it."""
        now = self._clock.monotonic()
        if now < self._next:
            self._held += 1
            return
        self._next = now + _SAY_SECONDS
        _log.warning("tracing.trouble", extra={"said": record.getMessage(), "unsaid": self._held})
        self._held = 0


def _speak_seldom(clock: Clock) -> None:
    library = logging.getLogger("opentelemetry")
    library.handlers[:] = [_Seldom(clock)]
    library.propagate = False
