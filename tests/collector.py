"""A collector of traces: takes OTLP over HTTP, as `opentelemetry-proto` defines it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.processes import PATIENCE, eventually

PATH = "/v1/traces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A span as it arrived.

    Attributes:
        service: the process it is of.
        kind: SERVER, PRODUCER, CONSUMER or CLIENT.
        trace, id, parent: hexadecimal; no parent is empty.
        state: the `tracestate`.
        attributes: by name.
        failed: whether its status is an error.
        why: what its status says.
    """

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    attributes: Mapping[str, str | int | bool]
    failed: bool
    why: str


@dataclass(slots=True)
class Collector:
    """What arrived, in the order of arrival; answers as it is told, when it is."""

    server: HTTPServer
    status: int = 200
    hold: threading.Event | None = None
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    spans: list[Seen] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return what `tracing.endpoint` is to be."""
        return self.server.url_for("").rstrip("/")

    def of(self, trace: str, count: int) -> list[Seen]:
        """Return the spans of a trace once there are `count`."""
        assert eventually(lambda: len(self._of(trace)) >= count), self._of(trace)
        return self._of(trace)

    def about(self, job_id: str, count: int) -> list[Seen]:
        """Return the spans of the trace that the job's attempts are in, once there are `count`."""

        def attempts() -> list[Seen]:
            return [span for span in self.spans if span.attributes.get("gateway.job.id") == job_id]

        assert eventually(lambda: bool(attempts())), self.spans
        return self.of(attempts()[0].trace, count)

    def take(self, request: Request) -> Response:
        """Keep what a process sent."""
        assert request.headers["Content-Type"] == "application/x-protobuf"
        body = gzip.decompress(request.get_data())
        if self.hold is not None:
            assert self.hold.wait(PATIENCE)
        self.headers.append(dict(request.headers))
        self.bodies.append(body)
        self.spans += _decoded(body)
        return Response(status=self.status)

    def _of(self, trace: str) -> list[Seen]:
        return [span for span in self.spans if span.trace == trace]


def _decoded(body: bytes) -> Iterator[Seen]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = str(_values(resource.resource.attributes)["service.name"])
        for scope in resource.scope_spans:
            yield from (_seen(span, service) for span in scope.spans)


def _seen(span: SentSpan, service: str) -> Seen:
    assert not span.events
    return Seen(
        service=service,
        name=span.name,
        kind=SentSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        attributes=_values(span.attributes),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        why=span.status.message,
    )


def _values(attributes: Iterable[KeyValue]) -> dict[str, str | int | bool]:
    return {
        each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    """Open a collector on a port of its own."""
    server = HTTPServer(host="127.0.0.1", port=0)
    collector = Collector(server)
    server.expect_request(PATH, method="POST").respond_with_handler(collector.take)
    server.start()
    try:
        yield collector
    finally:
        server.stop()
    server.check_assertions()
