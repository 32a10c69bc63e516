"""What a request body may hold, member by member, and how its faults are told.

Types are checked strictly: `"5"` is no number. A member that nobody knows is refused, and an
optional one may be null, as the job document writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel, to_snake

from config.clock import parse_rfc3339
from delivery.endpoints import MAX_DISABLED_URLS
from delivery.errors import SecretError
from delivery.models import Scheme
from delivery.replays import MAX_NAMED
from delivery.signing import check_secret
from gateway.auth import TENANT, Scope
from gateway.errors import Fault, details_of
from gateway.models import Payload, Priority
from gateway.problems import Problem
from gateway.strict_json import canonical

Event = Literal["job.completed", "job.failed", "job.cancelled", "job.expiring", "job.started"]

DEFAULT_EVENTS: tuple[Event, ...] = ("job.completed", "job.failed", "job.cancelled")
"""The events a callback tells unless it says otherwise."""

MAX_ATTEMPTS = 25
MAX_TIMEOUT_SECONDS = 86_400
MAX_RESULT_TTL_SECONDS = 30 * 86_400
MAX_OVERLAP_SECONDS = 30 * 86_400
MIN_RATE = 0.001
MAX_RATE = 100_000


_LAST_INSTANT = parse_rfc3339("9999-12-31T23:59:59.999999Z")
_NULLABLE_INSTANT = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}

CallbackUrl = Annotated[
    str, WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://"})
]


def _instant(value: object) -> int | None:
    if value is None:
        return None
    instant = -1
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            instant = parse_rfc3339(value)
    if not 0 <= instant <= _LAST_INSTANT:
        raise ValueError("must be a time in RFC 3339 since 1970, such as 2030-01-31T12:00:00Z")
    return instant


def _distinct(events: list[Event]) -> list[Event]:
    if len(set(events)) != len(events):
        raise ValueError("must not name an event twice")
    return events


def _distinct_scopes(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) != len(scopes):
        raise ValueError("must not name a scope twice")
    return scopes


def _tenant_id(text: str) -> str:
    if TENANT.fullmatch(text) is None:
        raise ValueError("must be 1 to 63 lower-case letters, digits, - or _")
    return text


TenantId = Annotated[str, AfterValidator(_tenant_id)]


class _Body(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


def layout_of(scheme: Scheme, payload: Payload | None) -> Payload:
    """Return how bodies are laid out that are signed by `scheme`, where `payload` may say so."""
    return payload or ("flat" if scheme == "x-signature" else "standard")


class CallbackRequest(_Body):
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


class SubmitRequest(_Body):
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
        BeforeValidator(_instant),
        WithJsonSchema(_NULLABLE_INSTANT),
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


class EndpointRequest(_Body):
    """A callback URL whose origin is to be known beforehand: the body of `POST /v1/endpoints`."""

    url: CallbackUrl


class SampleRequest(_Body):
    """A sample that is to be sent: the body of `POST /v1/endpoints/{id}/test`."""

    url: Annotated[
        CallbackUrl | None,
        Field(description="Where to: a URL of this endpoint's origin; its root otherwise."),
    ] = None
    event: Annotated[Event, Field(description="What it tells.")] = "job.completed"
    signature: Annotated[Scheme, Field(description="As in `callback` of a job.")] = "v1"
    payload: Annotated[Payload | None, Field(description="As in `callback` of a job.")] = None

    @property
    def layout(self) -> Payload:
        """How the body is laid out."""
        return layout_of(self.signature, self.payload)


class VerifyRequest(_Body):
    """A challenge that is wanted: the body of `POST /v1/endpoints/{id}/verify`."""

    url: Annotated[
        CallbackUrl | None,
        Field(description="Where to: a URL of this endpoint's origin; its root otherwise."),
    ] = None


class RotateRequest(_Body):
    """Another secret that is wanted: the body of `POST /v1/endpoints/{id}/rotate`."""

    scheme: Annotated[Scheme, Field(description="Whose secret.")] = "v1"
    secret: Annotated[
        Annotated[str, Field(min_length=24, max_length=128)] | None,
        Field(
            description="One of your own: `whsec_` and base64 of 24 to 64 bytes; for `v1a` `whsk_`"
            " and base64 of seed and public key; for `x-signature` 24 to 128 printable ASCII"
            " characters. A random one otherwise."
        ),
    ] = None
    overlap_seconds: Annotated[
        Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] | None,
        Field(
            description="How long the one it replaces signs on; 0: not at all. Those replaced"
            " earlier sign no longer than that either. A day, unless the operator set another."
        ),
    ] = None
    retire: Annotated[
        bool,
        Field(description="Make no new one: what was replaced earlier signs no more, from now on."),
    ] = False

    def canonical(self) -> bytes:
        """Return the one spelling of what was asked for: members given, names sorted."""
        return canonical(self.model_dump(by_alias=True, exclude_unset=True))


class EndpointChange(_Body):
    """What an operator says of an endpoint: the body of `PATCH /v1/endpoints/{id}`.

    A member that is left out changes nothing (as in RFC 7396).
    """

    rate_per_second: Annotated[
        Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE)] | None,
        Field(description="Attempts a second, at most; null for no such bound."),
    ] = None
    max_concurrency: Annotated[
        Annotated[int, Field(ge=1, le=100_000)] | None,
        Field(description="Attempts at once, at most; null for the gateway's own bound."),
    ] = None
    disabled_urls: Annotated[
        list[CallbackUrl],
        Field(
            max_length=MAX_DISABLED_URLS,
            description="The URLs nothing is sent to. One that is left out is enabled again.",
        ),
    ] = []


class KeyRequest(_Body):
    """An API key that is wanted: the body of `POST /v1/admin/keys`."""

    scopes: Annotated[
        list[Scope],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_distinct_scopes),
    ]
    tenant: Annotated[
        TenantId | None, Field(description="Whose it is; the asking key's tenant otherwise.")
    ] = None
    name: Annotated[
        Annotated[str, Field(max_length=100)] | None, Field(description="For people.")
    ] = None
    expires_at: Annotated[
        int | None,
        BeforeValidator(_instant),
        WithJsonSchema(_NULLABLE_INSTANT),
        Field(description="From when on it is refused."),
    ] = None


class TenantRequest(_Body):
    """A tenant that is wanted: the body of `POST /v1/admin/tenants`."""

    id: TenantId
    name: Annotated[
        Annotated[str, Field(max_length=100)] | None, Field(description="For people.")
    ] = None


Text = Annotated[str, Field(min_length=1, max_length=2_048)]
NullableInstant = Annotated[
    int | None, BeforeValidator(_instant), WithJsonSchema(_NULLABLE_INSTANT)
]


class LetterFilter(_Body):
    """Which dead letters are meant: `filter` of a replay. It says something at least."""

    reason: Annotated[Text | None, Field(description="Why they are dead.")] = None
    endpoint: Annotated[
        Text | None, Field(description="An endpoint, by its identifier or its origin.")
    ] = None
    type: Annotated[Text | None, Field(description="The type of their jobs.")] = None
    job: Annotated[Text | None, Field(description="The job they are about.")] = None
    died_after: Annotated[NullableInstant, Field(description="Died then or later.")] = None
    died_before: Annotated[NullableInstant, Field(description="Died earlier.")] = None


class ReplayRequest(_Body):
    """Dead letters to be replayed or purged together: the body of `POST /v1/replays`.

    Exactly one of `ids`, `filter` and `all` says which.
    """

    kind: Literal["delivery", "job"] = "delivery"
    action: Annotated[
        Literal["replay", "purge"],
        Field(description="`purge`: they leave the list for good, and nothing is sent."),
    ] = "replay"
    ids: Annotated[
        Annotated[
            list[str],
            Field(min_length=1, max_length=MAX_NAMED, json_schema_extra={"uniqueItems": True}),
        ]
        | None,
        Field(description="These."),
    ] = None
    filter: Annotated[LetterFilter | None, Field(description="Those that match now.")] = None
    all: Annotated[Literal[True] | None, Field(description="All there are now.")] = None
    to_url: Annotated[
        CallbackUrl | None,
        Field(description="Deliveries go here instead, signed for the endpoint of this URL."),
    ] = None
    rate: Annotated[
        Annotated[float, Field(ge=0.01, le=100_000)] | None,
        Field(description="At most so many a second."),
    ] = None
    max: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000_000)] | None, Field(description="At most so many.")
    ] = None
    dry_run: Annotated[bool, Field(description="Count them, and move none.")] = False
    stop_at_failure_rate: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="Stop when this share of first attempts was not taken."),
    ] = None


BodyT = TypeVar("BodyT", bound=BaseModel)


def parse_submit(value: Any, *, metadata_limit: int) -> SubmitRequest:
    """Return `value`, decoded JSON, as a submission.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    request = _parse(SubmitRequest, value)
    if request.callback is not None and request.callback_url is None:
        fault = Fault("/callback", "means nothing without callbackUrl")
        raise Problem("invalid_request", "callback needs a callbackUrl", faults=[fault])
    if request.metadata and len(canonical(request.metadata)) > metadata_limit:
        fault = Fault("/metadata", f"must be at most {metadata_limit} bytes as JSON")
        raise Problem("invalid_request", "metadata is too large", faults=[fault])
    return request


def parse_endpoint(value: Any) -> EndpointRequest:
    """Return `value`, decoded JSON, as the registration of an endpoint.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    return _parse(EndpointRequest, value)


def parse_sample(value: Any) -> SampleRequest:
    """Return `value`, decoded JSON, as the wish for a sample.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    return _parse(SampleRequest, value)


def parse_verification(value: Any) -> VerifyRequest:
    """Return `value`, decoded JSON, as the wish for a challenge.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    return _parse(VerifyRequest, value)


def parse_rotation(value: Any) -> RotateRequest:
    """Return `value`, decoded JSON, as the wish for another secret.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault; a secret is not
            shown.
    """
    request = _parse(RotateRequest, value)
    if request.retire:
        for member in ("secret", "overlapSeconds"):
            if getattr(request, to_snake(member)) is not None:
                fault = Fault(f"/{member}", "means nothing beside retire")
                raise Problem("invalid_request", "retire makes no new secret", faults=[fault])
    if request.secret is not None:
        try:
            check_secret(request.scheme, request.secret)
        except SecretError as error:
            fault = Fault("/secret", str(error))
            raise Problem("invalid_request", str(error), faults=[fault]) from error
    return request


def parse_endpoint_change(value: Any) -> EndpointChange:
    """Return `value`, decoded JSON, as a change of an endpoint.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    return _parse(EndpointChange, value)


def parse_key_request(value: Any) -> KeyRequest:
    """Return `value`, decoded JSON, as the wish for an API key.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    return _parse(KeyRequest, value)


def parse_tenant(value: Any) -> TenantRequest:
    """Return `value`, decoded JSON, as the wish for a tenant.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    return _parse(TenantRequest, value)


def parse_replay(value: Any) -> ReplayRequest:
    """Return `value`, decoded JSON, as the wish for a replay.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    request = _parse(ReplayRequest, value)
    faults = list(_replay_faults(request))
    if faults:
        raise Problem("invalid_request", _summary(faults, unknown=False), faults=faults)
    return request


def _replay_faults(request: ReplayRequest) -> Iterator[Fault]:
    scopes = [each for each in (request.ids, request.filter, request.all) if each is not None]
    if len(scopes) != 1:
        yield Fault("", "needs exactly one of ids, filter and all")
    if request.filter is not None and request.filter == LetterFilter():
        yield Fault("/filter", "says nothing: to take all of them, send all: true")
    if request.ids is not None and len(set(request.ids)) < len(request.ids):
        yield Fault("/ids", "must not name one twice")
    sends = request.kind == "delivery" and request.action == "replay"
    if request.to_url is not None and not sends:
        yield Fault("/toUrl", "is for replays of deliveries")
    if request.stop_at_failure_rate is not None and not sends:
        yield Fault("/stopAtFailureRate", "is for replays of deliveries")


def pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) that leads along `path`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _parse(model: type[BodyT], value: Any) -> BodyT:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors, number = details_of(error), error.error_count()
    if not errors:
        raise Problem("invalid_request", f"the body has {number} faults: too many to be listed")
    unknown = [each for each in errors if each["type"] == "extra_forbidden"]
    faults = [_fault(each["loc"], each["msg"], each["type"]) for each in unknown or errors]
    code = "unknown_member" if unknown else "invalid_request"
    raise Problem(code, _summary(faults, unknown=bool(unknown)), faults=faults)


def _fault(path: Sequence[str | int], message: str, kind: str) -> Fault:
    match kind:
        case "missing":
            detail = "is required"
        case "extra_forbidden":
            detail = "is not a member of this object"
        case _:
            detail = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return Fault(pointer(path), detail)


def _summary(faults: Sequence[Fault], *, unknown: bool) -> str:
    first = faults[0]
    rest = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    if unknown:
        return f"{first.pointer} is not a member this request can have{rest}"
    return f"{first.pointer or 'the body'} {first.detail}{rest}"
