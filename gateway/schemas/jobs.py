"""What is sent to have a job done."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from delivery.models import Scheme
from gateway.faults import Fault
from gateway.models import Payload, Priority
from gateway.problems import Problem
from gateway.schemas.body import NULLABLE_INSTANT, Body, CallbackUrl, instant, parse
from gateway.strict_json import canonical

Event = Literal["job.completed", "job.failed", "job.cancelled", "job.expiring", "job.started"]

DEFAULT_EVENTS: tuple[Event, ...] = ("job.completed", "job.failed", "job.cancelled")
"""The events a callback tells unless it says otherwise."""

MAX_ATTEMPTS = 25
MAX_TIMEOUT_SECONDS = 86_400
MAX_RESULT_TTL_SECONDS = 30 * 86_400


def _distinct(events: list[Event]) -> list[Event]:
    if len(set(events)) != len(events):
        raise ValueError("must not name an event twice")
    return events


def layout_of(scheme: Scheme, payload: Payload | None) -> Payload:
    """Return how bodies are laid out that are signed by `scheme`, where `payload` may say so."""
    return payload or ("flat" if scheme == "x-signature" else "standard")


class CallbackRequest(Body):
    """How the callback is to be sent: `callback` of a submission."""

    events: Annotated[
        list[Event],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_distinct),
    ] = list(DEFAULT_EVENTS)
    headers: Annotated[
        dict[str, str], Field(description="Sent with every callback; kept sealed, never shown.")
    ] = {}
    signature: Annotated[
        Scheme,
        Field(
            description="`v1` and `v1a` are Standard Webhooks, with HMAC-SHA256 and with Ed25519;"
            " `x-signature` is `v1` and beside it `X-Signature`, the hex HMAC-SHA256 of the body."
        ),
    ] = "v1"
    payload: Annotated[
        Payload | None,
        Field(
            description="`flat` lays the members of `data` beside `type` and `timestamp`; the job's"
            " own type is `jobType` there. It is the default with `x-signature`, else `standard`."
        ),
    ] = None

    @property
    def layout(self) -> Payload:
        """How the bodies are laid out."""
        return layout_of(self.signature, self.payload)


class SubmitRequest(Body):
    """What is to be done, and how: the body of `POST /v1/jobs`."""

    type: Annotated[
        str,
        Field(min_length=1, max_length=100, description="One of those in GET /v1/job-types."),
    ]
    input: Annotated[dict[str, Any], Field(description="As the schema of the type has it.")]
    callback_url: Annotated[
        CallbackUrl | None, Field(description="Where the end is told: https and a public host.")
    ] = None
    callback: Annotated[
        CallbackRequest | None, Field(description="How the callback is sent; needs a callbackUrl.")
    ] = None
    priority: Priority = "normal"
    run_at: Annotated[
        int | None,
        BeforeValidator(instant),
        WithJsonSchema(NULLABLE_INSTANT),
        Field(description="Not before this."),
    ] = None
    timeout_seconds: Annotated[
        Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] | None,
        Field(description="What an attempt may take; the type's default otherwise."),
    ] = None
    queue_timeout_seconds: Annotated[
        Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] | None,
        Field(description="How long it may wait for its first attempt; then it fails."),
    ] = None
    result_ttl_seconds: Annotated[
        Annotated[int, Field(ge=1, le=MAX_RESULT_TTL_SECONDS)] | None,
        Field(description="How long results are kept after the end."),
    ] = None
    max_attempts: Annotated[
        Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] | None,
        Field(description="How often it may run; the type's default otherwise."),
    ] = None
    metadata: Annotated[
        dict[str, Any] | None, Field(description="Anything; it comes back in every document.")
    ] = None
    on_complete: Annotated[
        Literal["redirect", "inline"],
        Field(description="What the status of the completed job answers: 303, or 200."),
    ] = "redirect"

    def canonical(self) -> bytes:
        """Return the one spelling of what was asked for: members given, names sorted."""
        return canonical(self.model_dump(by_alias=True, exclude_unset=True))


def parse_submit(value: Any, *, metadata_limit: int) -> SubmitRequest:
    """Return `value`, decoded JSON, as a submission.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    request = parse(SubmitRequest, value)
    if request.callback is not None and request.callback_url is None:
        fault = Fault("/callback", "means nothing without callbackUrl")
        raise Problem("invalid_request", "callback needs a callbackUrl", faults=[fault])
    if request.metadata and len(canonical(request.metadata)) > metadata_limit:
        fault = Fault("/metadata", f"must be at most {metadata_limit} bytes as JSON")
        raise Problem("invalid_request", "metadata is too large", faults=[fault])
    return request
