"""Examples in the OpenAPI document, written by the code that writes the real answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from config import ids
from config.clock import SECOND, rfc3339
from delivery.notices import Event as OperatorNotice
from delivery.notices import Notice
from delivery.sealing import KeyRing
from gateway.documents import document, event_body
from gateway.jobtypes import JobType, file_refs
from gateway.models import Callback, CallbackState, Job, Payload, View, callback_row
from gateway.openapi.operations import Example
from gateway.problems import Problem, render
from gateway.samples import KEPT, SAMPLE_JOB_ID, Samples
from gateway.schemas.jobs import Event
from gateway.urls import Urls

AT = 1_795_500_000 * SECOND
"""The instant that examples begin at: 2026-11-24T06:00:00Z, in µs."""

CALLBACK_URL = "https://client.example/webhooks/jobs"
TICKET = "1.6a13f2d0.4vJ0kq0yq2nL8mPpV3sT7xWz1bCdEfGh"

_RING = KeyRing({"example": bytes(32)})


def identifier(prefix: str, name: str = "example") -> str:
    """Return what an identifier with this prefix looks like, the same one every time."""
    return ids.derived_id(prefix, 0, name)


JOB_ID = SAMPLE_JOB_ID
FILE_ID = identifier("file")


@dataclass(frozen=True)
class Examples:
    """Answers about made-up jobs.

    Attributes:
        urls: builds the addresses in them.
    """

    urls: Urls

    @cached_property
    def pending(self) -> dict[str, Any]:
        """A job that waits for a worker."""
        return self._document(_SAMPLES.pending)

    @cached_property
    def processing(self) -> dict[str, Any]:
        """A job that is worked on."""
        return self._document(_SAMPLES.processing)

    @cached_property
    def cancelling(self) -> dict[str, Any]:
        """A job whose worker was told to stop."""
        return self._document(replace(_SAMPLES.processing, cancel_requested=True))

    @cached_property
    def completed(self) -> dict[str, Any]:
        """A job that is done, its callback delivered."""
        state = CallbackState(status="delivered", attempts=1, last_status_code=204)
        return self._document(_SAMPLES.completed, state)

    @cached_property
    def failed(self) -> dict[str, Any]:
        """A job that failed."""
        return self._document(_SAMPLES.failed, CallbackState(next_attempt_at=AT + 13 * SECOND))

    @cached_property
    def cancelled(self) -> dict[str, Any]:
        """A job that was cancelled before it began."""
        return self._document(_SAMPLES.cancelled, CallbackState(next_attempt_at=AT + 13 * SECOND))

    @cached_property
    def rerun(self) -> dict[str, Any]:
        """The job that runs a failed one again."""
        again = identifier("job", "again")
        return self._document(replace(_SAMPLES.pending, id=again, retry_of=JOB_ID, callback=None))

    def event(self, event: Event, payload: Payload = "standard") -> dict[str, Any]:
        """The body of a callback that tells `event`."""
        job = _SAMPLES.of(event)
        body = event_body(
            job,
            event=event,
            urls=self.urls,
            sequence=job.rev,
            ticket=TICKET,
            at=job.updated_at,
            payload=payload,
        )
        value: dict[str, Any] = json.loads(body)
        return value

    def notice(self, event: OperatorNotice) -> dict[str, Any]:
        """The body of a callback that tells the operator of `event`."""
        is_gone = event == "endpoint.disabled"
        notice = Notice(
            event=event,
            at=AT + 13 * SECOND,
            delivery=identifier("msg"),
            endpoint=identifier("ep"),
            origin="https://client.example",
            tenant="acme",
            reason="gone" if is_gone else "exhausted",
            attempts=1 if is_gone else 10,
            last_status=410 if is_gone else 500,
            tags={"jobId": JOB_ID, "event": "job.completed", "jobType": "document.analyze"},
        )
        value: dict[str, Any] = json.loads(notice.body())
        return value

    def problem(self, code: str) -> dict[str, Any]:
        """What is answered with the problem `code`."""
        problem = Problem(code, _DETAILS.get(code, "The detail tells what happened this time."))
        if code == "job_expired":
            expired = {"jobStatus": "completed", "expiredAt": rfc3339(AT + KEPT)}
            problem.members = {"jobId": JOB_ID, **expired}
        body, _ = render(
            problem, page=self.urls.problem(code), instance=self.urls.instance("/v1/jobs")
        )
        value: dict[str, Any] = json.loads(body)
        return value

    def _document(self, job: Job, state: CallbackState | None = None) -> dict[str, Any]:
        view = View(job=job, callback=state, now=AT + 8 * SECOND)
        return document(view, urls=self.urls, ring=_RING)


def input_of(job_type: JobType) -> dict[str, Any]:
    """Return the type's example as JSON can send it: with files that were uploaded before."""
    value = dict(job_type.example)
    for where in file_refs(job_type.parse_input(value), ""):
        *path, last = (_unescaped(step) for step in where.split("/")[1:])
        value = _with(value, [*path, last], {"fileId": FILE_ID})
    return value


def parts_of(job_type: JobType) -> dict[str, str]:
    """Return the names of the parts that the type's example names, by the members that do."""
    refs = file_refs(job_type.parse_input(dict(job_type.example)), "")
    return {where: ref.part for where, ref in refs.items() if ref.part is not None}


def submissions(job_types: tuple[JobType, ...]) -> dict[str, Example]:
    """Return a submission of each type, by the type's name."""
    return {
        kind.name: Example(
            summary=kind.summary,
            value={"type": kind.name, "input": input_of(kind), "callbackUrl": CALLBACK_URL},
        )
        for kind in job_types
    }


def _with(value: Any, path: list[str], replacement: Any) -> Any:
    """Return `value` with what `path` leads to replaced."""
    if not path:
        return replacement
    step, *rest = path
    if isinstance(value, list):
        at = int(step)
        return [*value[:at], _with(value[at], rest, replacement), *value[at + 1 :]]
    return {**value, step: _with(value[step], rest, replacement)}


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")


_SAMPLES = Samples(
    at=AT,
    callback=Callback(
        endpoint=identifier("ep"),
        url=_RING.seal(CALLBACK_URL.encode(), row=callback_row(JOB_ID)),
        url_hash="",
        events=(),
    ),
    metadata={"order": "A-1042"},
)

_DETAILS: Mapping[str, str] = {
    "unauthorized": "the API key is not known or was revoked",
    "insufficient_scope": "this needs an API key with the scope submit",
    "not_found": "no job of this identifier is known",
    "job_expired": f"the job expired at {rfc3339(AT + KEPT)}",
    "result_not_ready": "the job is processing",
    "job_failed": "The document is locked with a password.",
    "body_too_large": "the body may be at most 1048576 bytes",
    "invalid_input": "the input does not fit document.analyze",
    "unknown_job_type": "there is no such job type",
    "store_unavailable": "the store did not answer",
    "internal_error": "the request could not be handled",
}
