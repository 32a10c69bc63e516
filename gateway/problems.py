"""Problems: every refusal the API can answer with, by code (RFC 9457).

The table is the whole vocabulary. A code's page at `<public-url>/problems/<code>` is rendered from
it, so a problem cannot name a page that does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import GatewayError
from gateway.faults import MAX_FAULTS, Fault


@dataclass(frozen=True, slots=True)
class Kind:
    """What one code means.

    Attributes:
        status: the HTTP status it is answered with.
        title: the same few words every time.
        explanation: what happened and what to do about it, for the page.
    """

    status: int
    title: str
    explanation: str


PROBLEMS: Mapping[str, Kind] = {
    "malformed_request": Kind(
        400,
        "The request is not HTTP",
        "The request cannot be read, or in more ways than one: with two hosts, two credentials, two"
        " ends of its body. A proxy or a client in between is at fault.",
    ),
    "malformed_json": Kind(
        400,
        "The body is not acceptable JSON",
        "Send one JSON value in UTF-8 without a byte order mark. Member names must not repeat,"
        " numbers must fit a 64-bit integer or a double, and strings must not hold half a surrogate"
        " pair.",
    ),
    "malformed_body": Kind(
        400,
        "The body cannot be read",
        "A multipart/form-data body must be complete, and its first part must be named job and hold"
        " the request as JSON.",
    ),
    "invalid_parameter": Kind(
        400,
        "A query parameter cannot be used",
        "The detail names the parameter and the values it takes.",
    ),
    "invalid_idempotency_key": Kind(
        400,
        "The Idempotency-Key cannot be used",
        "Send one Idempotency-Key of 1 to 255 printable ASCII characters, with or without quotes.",
    ),
    "idempotency_key_required": Kind(
        400,
        "An Idempotency-Key is required",
        "This gateway takes submissions only with an Idempotency-Key, so that a repeated request"
        " cannot start a job twice. Send a fresh key with each new job.",
    ),
    "unauthorized": Kind(
        401,
        "Credentials are missing or not valid",
        "Send Authorization: Bearer with an API key that has not been revoked. Reading one job also"
        " works with a ticket that has not expired.",
    ),
    "insufficient_scope": Kind(
        403,
        "The API key may not do this",
        "The key is valid and lacks the scope that the detail names.",
    ),
    "origin_not_allowed": Kind(
        403,
        "Pages of this origin may not open a WebSocket",
        "The gateway's own pages may, and those of the origins its settings name.",
    ),
    "not_found": Kind(
        404,
        "There is nothing here",
        "Nothing is known under this address, or it belongs to somebody else.",
    ),
    "method_not_allowed": Kind(
        405,
        "The method is not allowed here",
        "The Allow header lists the methods this address takes.",
    ),
    "result_not_ready": Kind(
        409,
        "The job has not ended yet",
        "Ask again after the seconds in Retry-After, or wait for the callback.",
    ),
    "job_failed": Kind(
        409,
        "The job failed, so it has no result",
        "The job's status document says why, in error and errorCode.",
    ),
    "job_cancelled": Kind(
        409,
        "The job was cancelled, so it has no result",
        "Submit the work again if it is still wanted.",
    ),
    "job_not_cancellable": Kind(
        409,
        "The job has ended already",
        "A job that completed or failed stays as it is.",
    ),
    "job_not_ended": Kind(
        409,
        "The job has not ended yet",
        "Only a job that has ended can be erased. Cancel it, or wait.",
    ),
    "job_not_retryable": Kind(
        409,
        "The job did not fail",
        "Only a job that failed or was cancelled can be run again. To repeat another one, submit it"
        " anew.",
    ),
    "endpoint_in_use": Kind(
        409,
        "Deliveries to the endpoint wait",
        "An endpoint can be deleted when none waits or is being attempted. GET shows how many.",
    ),
    "redelivery_over": Kind(
        409,
        "The callback can be sent no more",
        "It was delivered, and is kept whole for a while only. What came of it is still shown.",
    ),
    "endpoint_deleted": Kind(
        409,
        "The callback's endpoint was deleted",
        "Its secrets went with it, so nothing to it can be signed. What is dead can be replayed to"
        " another URL.",
    ),
    "replay_not_running": Kind(
        409,
        "The replay does not run",
        "Only a replay that runs can be cancelled. Its document says how it ended.",
    ),
    "replay_completed": Kind(
        409,
        "The replay is completed",
        "Only one that was cancelled or stopped can be resumed. To replay more, make a new one.",
    ),
    "request_in_progress": Kind(
        409,
        "A request with this Idempotency-Key is being handled",
        "Send the same request again after the seconds in Retry-After.",
    ),
    "job_expired": Kind(
        410,
        "The job has expired",
        "Its results were kept for the agreed time and then deleted. The members jobId, jobStatus"
        " and expiredAt say what is still known.",
    ),
    "body_too_large": Kind(
        413,
        "The body is too large",
        "The detail names the limit. Large inputs belong in files of a multipart/form-data body.",
    ),
    "unsupported_media_type": Kind(
        415,
        "The body is in a form this address does not take",
        "Send application/json or multipart/form-data, without Content-Encoding. POST /v1/files"
        " takes the bytes of one file as they are.",
    ),
    "range_not_satisfiable": Kind(
        416,
        "The range lies outside of the file",
        "Content-Range says how many bytes there are.",
    ),
    "invalid_request": Kind(
        422,
        "The request has members that cannot be used",
        "errors names each of them by JSON pointer.",
    ),
    "unknown_member": Kind(
        422,
        "The request has members nobody knows",
        "errors names each of them by JSON pointer. A member that is not known would be ignored"
        " silently, so it is refused instead.",
    ),
    "unknown_job_type": Kind(
        422,
        "The job type does not exist",
        "GET /v1/job-types lists those that do.",
    ),
    "invalid_input": Kind(
        422,
        "The input does not fit the job type",
        "errors names the members at fault. GET /v1/job-types shows the schema and an example.",
    ),
    "invalid_callback_url": Kind(
        422,
        "The callback URL cannot be used",
        "A callback URL is https, without user name or fragment, names a public host, and uses an"
        " allowed port. Its name is looked up only when the callback is sent.",
    ),
    "too_many_endpoints": Kind(
        422,
        "Callbacks go to too many origins",
        "So many callback endpoints of one client are kept track of, and no more. Nothing was kept."
        " Delete endpoints that are no longer in use.",
    ),
    "endpoint_unverified": Kind(
        422,
        "The callback's endpoint has not answered its challenge",
        "This gateway calls back only where callbacks are wanted. Register the endpoint with POST"
        " /v1/endpoints, or ask again with POST /v1/endpoints/{id}/verify, and have its receiver"
        " answer the event endpoint.verification.",
    ),
    "idempotency_key_reused": Kind(
        422,
        "The Idempotency-Key was used for another request",
        "A key stands for one request. Send a fresh key with a different request.",
    ),
    "too_many_pending": Kind(
        429,
        "Too many jobs wait",
        "So many jobs of one client may wait, and no more. Send the request again after the seconds"
        " in Retry-After, when some are done.",
    ),
    "too_many_replays": Kind(
        429,
        "Too many replays run",
        "So many replays of one tenant may run at once, and no more. Cancel some, or send the"
        " request again after the seconds in Retry-After.",
    ),
    "rate_limited": Kind(
        429,
        "Too many requests",
        "Send the request again after the seconds in Retry-After. RateLimit-Policy and RateLimit"
        " say what is allowed and what is left. Polls of one job a second apart are never refused;"
        " a callback, a long poll or an event stream needs none at all.",
    ),
    "head_too_large": Kind(
        431,
        "The head of the request is too large",
        "The address and the header fields together are longer than this server takes.",
    ),
    "internal_error": Kind(
        500,
        "Something went wrong on our side",
        "The request may be sent again. With an Idempotency-Key that is safe for submissions too.",
    ),
    "unhealthy": Kind(
        503,
        "This process takes no part at present",
        "It is starting, stopping or stuck, or its store takes no writes. Which of these it is, its"
        " admin port tells.",
    ),
    "no_space_left": Kind(
        507,
        "As many bytes are kept as may be",
        "Uploaded files and what jobs were given and made are kept up to a limit for each tenant."
        " Erase jobs that are not needed any more, or wait until some expire.",
    ),
    "store_unavailable": Kind(
        503,
        "The store cannot be reached",
        "Send the same request again after the seconds in Retry-After. When a job was being"
        " written, jobId names it: whether it was kept is not known, and asking for its status"
        " tells.",
    ),
    "store_full": Kind(
        503,
        "The store is full",
        "Nothing was kept. Send the request again after the seconds in Retry-After.",
    ),
    "queue_full": Kind(
        503,
        "The queue is full",
        "More jobs wait than can be worked off soon. Nothing was kept. Send the request again after"
        " the seconds in Retry-After.",
    ),
    "too_many_watchers": Kind(
        503,
        "Too many clients watch jobs",
        "So many event streams, WebSockets and held back answers are open, and no more. Try again"
        " after the seconds in Retry-After, or poll without waiting.",
    ),
    "overloaded": Kind(
        503,
        "Too many requests are in hand",
        "Nothing was done. Send the same request again after the seconds in Retry-After.",
    ),
    "artifacts_unavailable": Kind(
        503,
        "The store of files cannot be used",
        "Send the same request again after the seconds in Retry-After.",
    ),
}
_MAX_TEXT = 500
"""Characters of a sentence, and of a pointer, that are sent back."""
MEDIA_TYPE = "application/problem+json"


class Problem(GatewayError):
    """A refusal on its way to the client.

    Args:
        code: a code of `PROBLEMS`; its status goes with it.
        detail: a sentence about this occurrence, safe to show.
        faults: the members at fault.
        headers: response headers that belong to it, such as Allow.
        members: extension members (RFC 9457 section 3.2).
        retry_after: seconds until asking again makes sense.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.kind = PROBLEMS[code]
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status


def render(problem: Problem, *, page: str, instance: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that `problem` is answered with.

    Args:
        problem: what to say.
        page: URL of the code's page.
        instance: URL of what was asked for, without its query, which may hold a ticket.
    """
    members: dict[str, Any] = {
        "type": page,
        "title": problem.kind.title,
        "status": problem.status,
        "detail": _short(problem.detail),
        "instance": instance,
        "code": problem.code,
    }
    if problem.faults:
        members["errors"] = [
            {"pointer": _short(fault.pointer), "detail": _short(fault.detail)}
            for fault in problem.faults[:MAX_FAULTS]
        ]
    body = json.dumps({**problem.members, **members}, ensure_ascii=True, separators=(",", ":"))
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", **problem.headers}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.code == "insufficient_scope":
        headers["WWW-Authenticate"] = 'Bearer error="insufficient_scope"'
    return body.encode() + b"\n", headers


def _short(text: str) -> str:
    """Return `text`, cut where a client made it long: names of members are the client's."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
