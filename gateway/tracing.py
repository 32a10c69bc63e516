"""The spans of jobs, where traces are recorded: of the submission, and of each attempt.

A submission has two: one for the request, and within it one for what is kept, which attempts go on
from; callbacks go on from the attempt that owes them. Names are those of OpenTelemetry's semantic
conventions for HTTP and for messaging, as far as they have one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, cast

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.tracing import parse_trace
from gateway.outcomes import AttemptOutcome, Raised

if TYPE_CHECKING:
    from config.spans import Span, Tracer
    from gateway.models import Job

_SPAN = "gateway.span"
_FAULT = 500
_ERROR_LENGTH = 1_000


class SubmissionSpans:
    """Records a span around each request that submits."""

    def __init__(self, app: ASGIApp, *, tracer: Tracer, submissions: Collection[str]) -> None:
        """Stand before `app`; `submissions` are the paths at which a POST submits."""
        self._app = app
        self._tracer = tracer
        self._submissions = submissions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope.get("method") != "POST" or scope["path"] not in self._submissions:
            await self._app(scope, receive, send)
            return
        with self._begin(scope) as span:
            scope[_SPAN] = span

            async def tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note_status(span, message["status"])
                await send(message)

            await self._app(scope, receive, tell)

    def _begin(self, scope: Scope) -> Span:
        path: str = scope["path"]
        attributes = {
            "http.request.method": "POST",
            "http.route": path,
            "url.path": path,
            "url.scheme": scope["scheme"],
        }
        return self._tracer.begin(f"POST {path}", "server", _sent(Headers(scope=scope)), attributes)


def span_of(request: Request) -> Span | None:
    """Return the span of a request, None where it has none."""
    return cast("Span | None", request.scope.get(_SPAN))


def trace_of(request: Request) -> str | None:
    """Return the trace that a request tells of."""
    return _sent(request.headers)


def begin_keeping(request: Span, *, tenant: str, job_type: str) -> Span:
    """Begin the span of what `request` leads to: a job is kept, and waits to be run."""
    attributes = {**_job(tenant, job_type), "messaging.operation.type": "send"}
    return request.child(
        f"enqueue {job_type}", "producer", {**attributes, "messaging.operation.name": "enqueue"}
    )


def note_kept(span: Span, job_id: str, *, replayed: bool) -> None:
    """Say which job was kept, or had been under the same key."""
    span.note({**_message(job_id), "gateway.replayed": True if replayed else None})


def begin_attempt(tracer: Tracer, job: Job) -> Span:
    """Begin the span of an attempt at `job`, as it was claimed."""
    attributes = {
        **_job(job.tenant, job.type),
        "messaging.operation.type": "process",
        "messaging.operation.name": "job",
        **_message(job.id),
        "gateway.job.attempt": job.attempt,
        "gateway.job.max_attempts": job.max_attempts,
    }
    return tracer.begin(f"job {job.type}", "consumer", job.trace, attributes)


def note_outcome(span: Span, became: str, outcome: AttemptOutcome) -> None:
    """Say what became of an attempt; of an error, what its client is told."""
    span.note({"gateway.job.outcome": became})
    if isinstance(outcome, Raised):
        span.fail(outcome.code, outcome.error[:_ERROR_LENGTH])


def _job(tenant: str, job_type: str) -> dict[str, str | int | None]:
    return {
        "messaging.system": "gateway",
        "messaging.destination.name": job_type,
        "gateway.job.type": job_type,
        "gateway.tenant": tenant,
    }


def _message(job_id: str) -> dict[str, str]:
    return {"messaging.message.id": job_id, "gateway.job.id": job_id}


def _sent(headers: Headers) -> str | None:
    return parse_trace(headers.getlist("traceparent"), headers.getlist("tracestate"))


def _note_status(span: Span, status: int) -> None:
    span.note({"http.response.status_code": status})
    if status >= _FAULT:
        span.fail(str(status))
