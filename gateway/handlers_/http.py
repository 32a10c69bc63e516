"""`http.request`: call a slow HTTP service that the settings name, and keep its answer.

What the service answers is the job's result, whatever the status, as long as asking again would not
help. What may be over in a while (408, 429, 5xx, no answer) is `upstream_error`, and is tried again
if the method is idempotent (RFC 9110, section 9.2.2); POST and PATCH get one attempt.

Further codes: `upstream_unknown`, `method_not_allowed`, `header_not_allowed`,
`destination_not_allowed`, `answer_too_large`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from typing import Annotated, BinaryIO, Final, Self, cast

from pydantic import Field, JsonValue, RootModel, field_validator, model_validator

from config.clock import SystemClock
from config.settings import Settings, current_settings
from config.values import MAX_REQUEST_SECONDS, Method
from delivery.configure import user_agent
from delivery.deadlines import Deadlines
from delivery.engine import TransportFailed
from delivery.errors import DestinationDenied, HeaderRefused
from delivery.fetch import AnswerTooLarge, Fetched, Request, fetch
from delivery.headers import validate_custom_headers
from gateway.handlers import Artifact, JobContext, JobError, JobModel, job_type
from gateway.handlers_.answer import INLINE_BYTES, inline_body, kept_headers, save_body
from gateway.handlers_.breaker import Breakers
from gateway.handlers_.upstream import (
    MAX_PATH,
    Target,
    check_path,
    check_upstream,
    find_target,
    is_url,
)
from gateway.handlers_.watch import run_watched
from gateway.models import compact

_MAX_HEADERS = 20
_MARGIN_SECONDS = 60
_CONNECT_SECONDS = 5.0
_DNS_SECONDS = 3.0
_IN_MEMORY = 256 * 1024

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_TRY_AGAIN: Final = frozenset({408, 429})
# What says that the service is down or overrun; any other answer shows that it is there.
_DOWN: Final = frozenset({429, 502, 503, 504})

_CONTENT_TYPE = re.compile(r"[!-~]{1,60}/[!-~](?:[ -~]{0,180}[!-~])?", re.ASCII)

_breakers = Breakers()
_clock = SystemClock()


class RequestInput(JobModel):
    """The request.

    Attributes:
        upstream: the name of a service in the settings; or, where they allow it, a URL.
        method: GET unless given.
        path: path and query, appended to the upstream's address.
        headers: sent along; none that say who asks, frame the message or belong to proxies.
            `Idempotency-Key` is always the job's id, `User-Agent` the gateway's.
        body: sent as JSON; a string as it is, as plain text unless `headers` say what it is; null
            sends none.
        timeout_seconds: for the whole request; the upstream's own limit holds beside it.
    """

    upstream: Annotated[str, Field(strict=True, min_length=1, max_length=2_048)]
    method: Method = "GET"
    path: Annotated[str, Field(strict=True, max_length=MAX_PATH)] | None = None
    headers: dict[str, str] = Field(default_factory=dict, max_length=_MAX_HEADERS)
    body: JsonValue = None
    timeout_seconds: Annotated[float, Field(strict=True, gt=0, le=MAX_REQUEST_SECONDS)] | None = (
        None
    )

    @field_validator("upstream")
    @classmethod
    def _known(cls, upstream: str) -> str:
        check_upstream(upstream, current_settings() if is_url(upstream) else None)
        return upstream

    @field_validator("path")
    @classmethod
    def _contained(cls, path: str | None) -> str | None:
        if path is not None:
            check_path(path)
        return path

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, str]) -> dict[str, str]:
        _check_headers(headers)
        return headers

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        if self.path is not None and is_url(self.upstream):
            raise ValueError("give 'path' only with the name of an upstream; a URL has its own")
        return self


class InlineAnswer(JobModel):
    """An answer whose body is short: JSON as it is, text as a string, null when it was empty.

    Attributes:
        status: of the answer.
        headers: in lower case, less those of the connection and cookies.
        body: the body.
    """

    status: int
    headers: dict[str, str]
    body: JsonValue


class KeptAnswer(JobModel):
    """An answer whose body is long or not text.

    Attributes:
        status: of the answer.
        headers: in lower case, less those of the connection and cookies.
        artifact: the body, with its content coding still on.
    """

    status: int
    headers: dict[str, str]
    artifact: Artifact


class RequestResult(RootModel[InlineAnswer | KeptAnswer]):
    """The answer."""


@job_type(
    "http.request",
    timeout=MAX_REQUEST_SECONDS + _MARGIN_SECONDS,
    max_attempts=3,
    example={"upstream": "reports", "method": "GET", "path": "/yearly?year=2026"},
)
def request(job: JobContext, given: RequestInput) -> RequestResult:
    """Call a service that the settings name, and keep its answer."""
    settings = current_settings()
    target = find_target(given.upstream, given.path, settings)
    prepared = _prepare(job, given, target, settings)
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spooled:
        body = cast("BinaryIO", spooled)
        answer = _call(job, given, target, prepared, body)
        _check_status(answer, given.method, target)
        result = _result(job, answer, body)
    job.progress(100, "Done")
    return result


def _check_headers(headers: Mapping[str, str]) -> None:
    """Apply the rules for a callback's custom headers, but leave the content type to the client.

    Raises:
        ValueError: naming the header and the rule.
    """
    folded = {name.lower(): value for name, value in headers.items()}
    if len(folded) != len(headers):
        raise ValueError("A header is given twice.")
    if "idempotency-key" in folded:
        raise ValueError("The header idempotency-key is not for clients to set.")
    if not _CONTENT_TYPE.fullmatch(folded.pop("content-type", "text/plain")):
        raise ValueError("The header content-type must be a media type in printable ASCII.")
    try:
        validate_custom_headers(folded)
    except HeaderRefused as error:
        raise ValueError(error.detail) from None


def _prepare(job: JobContext, given: RequestInput, target: Target, settings: Settings) -> Request:
    if target.methods is not None and given.method not in target.methods:
        raise JobError(
            f"{target.title} may not be called with {given.method}.",
            code="method_not_allowed",
        )
    headers = {name.lower(): value for name, value in given.headers.items()}
    for name in target.headers:
        if name in headers:
            raise JobError(
                f"The header {name} is set by the settings of the upstream {target.name!r}.",
                code="header_not_allowed",
            )
    body, content_type = _encode(given.body)
    if content_type:
        headers.setdefault("content-type", content_type)
    return Request(
        method=given.method,
        url=target.url,
        headers={
            "accept": "*/*",
            "user-agent": user_agent(settings),
            **headers,
            **target.headers,
            # Bodies are kept as they come, so they had better come plain.
            "accept-encoding": "identity",
            "idempotency-key": job.id,
        },
        body=body,
    )


def _encode(body: JsonValue) -> tuple[bytes, str]:
    """Return the bytes to send and what they are unless the client says otherwise."""
    match body:
        case None:
            return b"", ""
        case str():
            return body.encode(), "text/plain; charset=utf-8"
        case _:
            return compact(body).encode(), "application/json"


def _call(
    job: JobContext, given: RequestInput, target: Target, prepared: Request, body: BinaryIO
) -> Fetched:
    """Send the request if the breaker lets it through, and tell the breaker how it went."""
    if not _breakers.admit(target.name, _clock.monotonic(), target.rules):
        raise JobError(
            f"{target.title} has been failing; this request was not sent.",
            code="upstream_error",
            retry=True,
        )
    total = min(given.timeout_seconds or target.timeout, target.timeout)
    message = f"Waiting for {target.name}"
    job.progress(0, message)
    exchange = fetch(
        prepared,
        body.write,
        limit=target.limit,
        reach=target.reach,
        deadlines=Deadlines(
            dns=_DNS_SECONDS, connect=_CONNECT_SECONDS, first_byte=total, total=total
        ),
    )
    try:
        answer = run_watched(job, exchange, lambda: job.progress(0, message))
    except TransportFailed as failure:
        _report(target, success=False)
        raise _failed(f"did not answer: {failure}", given.method, target) from failure
    except DestinationDenied as error:
        raise JobError("The URL's host is not allowed.", code="destination_not_allowed") from error
    except AnswerTooLarge as error:
        _report(target, success=True)
        raise JobError(
            f"The answer is larger than the limit of {error.limit:,} bytes.",
            code="answer_too_large",
        ) from error
    _report(target, success=answer.status not in _DOWN)
    return answer


def _report(target: Target, *, success: bool) -> None:
    _breakers.report(target.name, _clock.monotonic(), target.rules, success=success)


def _check_status(answer: Fetched, method: str, target: Target) -> None:
    """Return when the answer is a result.

    Raises:
        JobError: `upstream_error`; asking again may help, or the status is none of HTTP's.
    """
    if answer.status in _TRY_AGAIN or not 200 <= answer.status < 500:
        raise _failed(f"answered with status {answer.status}", method, target)


def _failed(what: str, method: str, target: Target) -> JobError:
    return JobError(f"{target.title} {what}.", code="upstream_error", retry=method in _IDEMPOTENT)


def _result(job: JobContext, answer: Fetched, body: BinaryIO) -> RequestResult:
    headers = kept_headers(answer.headers)
    body.seek(0)
    if answer.size <= INLINE_BYTES:
        fits, value = inline_body(body.read(), answer.headers)
        if fits:
            return RequestResult(InlineAnswer(status=answer.status, headers=headers, body=value))
    artifact = save_body(job, body, answer)
    return RequestResult(KeptAnswer(status=answer.status, headers=headers, artifact=artifact))
