"""The job document, the one shape a job has outside: in answers and in callbacks.

Pure: everything comes in by argument. Results that are kept as a file are read by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from config.clock import SECOND, rfc3339
from delivery.sealing import KeyRing
from gateway.jobcontext import artifact_name
from gateway.models import Callback, CallbackState, Job, Payload, View, callback_row, compact
from gateway.urls import Urls

_ARTIFACT_MEMBERS = frozenset({"href", "resultUrl"})
_POLL_MIN, _POLL_MAX = 1, 30


def document(view: View, *, urls: Urls, ring: KeyRing, file_results: Any = None) -> dict[str, Any]:
    """Return the job document of `view`, members in the contract's order.

    Args:
        view: the job and the state of its callback.
        urls: builds the addresses in it.
        ring: opens the sealed callback URL.
        file_results: the content of `job.results_file`, where the results are kept so.

    Raises:
        SealError: no key of the ring opens the callback URL.
    """
    job = view.job
    results = file_results if job.results_file else job.results
    members = _members(job, urls=urls, results=expand(results, job, urls=urls))
    members["estimatedCompletion"] = instant(estimated_completion(view))
    members["callback"] = _callback(job.id, job.callback, view.callback, ring)
    return members


def event_body(
    job: Job,
    *,
    event: str,
    urls: Urls,
    sequence: int,
    ticket: str | None,
    at: int,
    payload: Payload = "standard",
) -> bytes:
    """Return the body of the callback that tells `event`: compact UTF-8 JSON, rendered once.

    Args:
        job: the job as the event leaves it.
        event: such as `job.completed`.
        urls: builds the addresses in it.
        sequence: rises with every event of the job.
        ticket: lets a receiver without an API key read the result and the artifacts.
        at: when the event happened, µs.
        payload: how it is laid out. Flat, the event's `type` wins over that of the job, which is
            `jobType` then.
    """
    results = None if job.results_file else expand(job.results, job, urls=urls, ticket=ticket)
    data = _members(job, urls=urls, results=results)
    del data["callback"], data["estimatedCompletion"]
    data["sequence"] = sequence
    if job.results_file:
        data["resultsOmitted"] = True
        data["resultUrl"] = urls.result(job.id, ticket)
    head = {"type": event, "timestamp": rfc3339(at)}
    match payload:
        case "standard":
            return compact({**head, "data": data}).encode()
        case "flat":
            renamed = {"jobType" if name == "type" else name: data[name] for name in data}
            return compact({**head, **renamed}).encode()
        case _:
            assert_never(payload)


def version(view: View) -> str:
    """Return what changes whenever the document does, estimates aside."""
    callback = view.callback
    if callback is None or not view.job.is_terminal:
        return str(view.job.rev)
    return f"{view.job.rev}.{callback.status}.{callback.attempts}"


def estimated_completion(view: View) -> int | None:
    """Return when the attempt under way should end (µs); None where nothing says anything.

    From its progress so far, as if it went on at that pace; before any, from how long attempts at
    this type of job took lately.
    """
    job = view.job
    started = job.attempt_at or job.started_at
    if job.status != "processing" or started is None:
        return None
    if job.progress > 0:
        return started + max(0, view.now - started) * 100 // job.progress
    return None if view.usual is None else max(view.now, started + view.usual)


def retry_after(view: View, rand: float) -> int:
    """Return the seconds until the next poll makes sense: 1 to 30, and 1 when nothing is known.

    Args:
        view: the job, not ended yet.
        rand: a number in [0, 1) that spreads clients by a fifth either way.
    """
    due = estimated_completion(view)
    if due is None and view.job.status == "pending":
        due = view.job.next_run_at or view.job.run_at
    if due is None:
        return _POLL_MIN
    remaining = (due - view.now) / SECOND
    return round(min(max(remaining * (0.8 + 0.4 * rand), _POLL_MIN), _POLL_MAX))


def expand(value: Any, job: Job, *, urls: Urls, ticket: str | None = None) -> Any:
    """Return `value` with each placeholder of an artifact of this job made that artifact's URL."""
    match value:
        case dict():
            return _expand_object(value, job, urls, ticket)
        case list():
            return [expand(item, job, urls=urls, ticket=ticket) for item in value]
        case _:
            return value


def _expand_object(
    members: Mapping[str, Any], job: Job, urls: Urls, ticket: str | None
) -> dict[str, Any]:
    expanded: dict[str, Any] = {}
    for name, value in members.items():
        artifact = _artifact_in(name, value, job)
        if artifact is not None:
            expanded[name] = urls.artifact(job.id, artifact, ticket)
        else:
            expanded[name] = expand(value, job, urls=urls, ticket=ticket)
    if _artifact_in("href", members.get("href"), job) is not None and "expiresAt" in members:
        expanded["expiresAt"] = instant(job.expires_at)
    return expanded


def _artifact_in(member: str, value: object, job: Job) -> str | None:
    if member not in _ARTIFACT_MEMBERS or not isinstance(value, str):
        return None
    name = artifact_name(value)
    return name if name in job.artifacts else None


def _members(job: Job, *, urls: Urls, results: Any) -> dict[str, Any]:
    return {
        "jobId": job.id,
        "type": job.type,
        "status": job.status,
        "cancelRequested": job.cancel_requested,
        "progress": job.progress,
        "message": job.message,
        "priority": job.priority,
        "attempt": job.attempt,
        "maxAttempts": job.max_attempts,
        "createdAt": rfc3339(job.created_at),
        "runAt": instant(job.run_at),
        "nextRunAt": instant(job.next_run_at),
        "startedAt": instant(job.started_at),
        "updatedAt": rfc3339(job.updated_at),
        "completedAt": instant(job.completed_at),
        "estimatedCompletion": None,
        "expiresAt": instant(job.expires_at),
        "results": results,
        "error": job.error,
        "errorCode": job.error_code,
        "metadata": dict(job.metadata),
        "retryOf": job.retry_of,
        "retriedAs": job.retried_as,
        "callback": None,
        "statusUrl": urls.job(job.id),
        "_links": {
            "self": urls.job(job.id),
            "result": urls.result(job.id),
            "cancel": urls.cancel(job.id),
            "events": urls.events(job.id),
            "websocket": urls.websocket(job.id),
            "deliveries": urls.deliveries(job.id),
        },
    }


def shown_url(url: str) -> str:
    """Return a callback URL as documents show it: without its query, which may be a credential.

    Documents are read by holders of tickets too, who are nobody that the URL was given to.
    """
    address, mark, query = url.partition("?")
    return f"{address}?***" if mark and query else url


def _callback(
    job_id: str, callback: Callback | None, state: CallbackState | None, ring: KeyRing
) -> dict[str, Any] | None:
    if callback is None:
        return None
    state = state or CallbackState()
    return {
        "url": shown_url(ring.open(callback.url, row=callback_row(job_id)).decode()),
        "status": state.status,
        "attempts": state.attempts,
        "lastStatusCode": state.last_status_code,
        "nextAttemptAt": instant(state.next_attempt_at),
    }


def instant(us: int | None) -> str | None:
    """Return `us` (µs) as it is written outside; None stays None."""
    return None if us is None else rfc3339(us)
