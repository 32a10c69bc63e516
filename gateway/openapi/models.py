"""The bodies the gateway answers with and calls back with, as schemas.

Answers are written by `documents`, `problems` and the `api_*` modules; here is what they promise,
and the tests hold one against the other. Clients should pass over members that they do not know:
later releases may add some.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from delivery.endpoints import MAX_DISABLED_URLS
from delivery.models import Reason, Scheme, State
from delivery.notices import Event as OperatorNotice
from gateway.audit import Action
from gateway.auth import Scope
from gateway.jobtypes import Isolation
from gateway.models import Priority, Status
from gateway.problems import PROBLEMS
from gateway.schemas.jobs import Event

Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 in UTC with milliseconds."""

Url = Annotated[str, WithJsonSchema({"type": "string", "format": "uri"})]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="Lower-case hexadecimal.")]
Results = Annotated[
    Any, Field(description="What the job type promises, once completed; null before.")
]
Percent = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0)]
ACTIONS = list(get_args(Action))


class Answered(BaseModel):
    """Base of what is answered: members in camelCase, all of them always there."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, strict=True)


class CallbackStatus(Answered):
    """How the callback of a job's end stands."""

    url: Annotated[str, Field(description="Its query, if it has one, as `***`.")]
    status: Annotated[
        Literal["pending", "delivered", "dead", "disabled"],
        Field(description="`disabled`: the receiver answered 410 Gone to this URL before."),
    ]
    attempts: Count
    last_status_code: Annotated[
        int | None, Field(description="Of the receiver's last answer, if there was one.")
    ]
    next_attempt_at: Instant | None


class JobLinks(Answered):
    """Where to go on from a job."""

    self: Url
    result: Url
    cancel: Url
    events: Url
    websocket: Annotated[Url, Field(description="The same documents, as text frames.")]
    deliveries: Url


class JobBase(Answered):
    """What a job's document and the callbacks about it have in common."""

    job_id: str
    type: str
    status: Status
    cancel_requested: Annotated[
        bool, Field(description="A cancel is under way: the worker was told, and has not stopped.")
    ]
    progress: Percent
    message: Annotated[str | None, Field(description="What it is doing, for people.")]
    priority: Priority
    attempt: Annotated[Count, Field(description="The attempt under way, or the last one.")]
    max_attempts: Annotated[int, Field(ge=1)]
    created_at: Instant
    run_at: Annotated[Instant | None, Field(description="Not before this, as asked at submit.")]
    next_run_at: Annotated[Instant | None, Field(description="When it is tried again.")]
    started_at: Instant | None
    updated_at: Instant
    completed_at: Annotated[Instant | None, Field(description="The end, whatever the end was.")]
    expires_at: Annotated[
        Instant | None, Field(description="Until then the results are kept; 410 afterwards.")
    ]
    error: Annotated[str | None, Field(description="A sentence for people.")]
    error_code: Annotated[
        str | None,
        Field(
            description="For programs, an open set: `handler_error`, `timeout`, `queue_timeout`, "
            "`orphaned`, `poison`, `upstream_error`, and what handlers raise."
        ),
    ]
    metadata: Annotated[dict[str, Any], Field(description="As it was given at submit.")]
    retry_of: Annotated[str | None, Field(description="The job that this one runs again.")]
    retried_as: Annotated[str | None, Field(description="The job that runs this one again.")]
    status_url: Url
    links: Annotated[JobLinks, Field(alias="_links")]


class JobItem(JobBase):
    """A job in a list: its document without the results."""

    estimated_completion: Annotated[
        Instant | None,
        Field(description="Computed from progress or from recent jobs; null when neither tells."),
    ]
    callback: Annotated[CallbackStatus | None, Field(description="Null without a callbackUrl.")]


class JobDocument(JobItem):
    """How a job stands: the one shape a job has, whoever asks and whenever."""

    results: Results


class JobList(Answered):
    """One page of the tenant's jobs, newest first."""

    items: tuple[JobItem, ...]
    next_cursor: Annotated[str | None, Field(description="Of the next page; null at the end.")]


class EventData(JobBase):
    """A job as an event left it."""

    results: Results
    sequence: Annotated[
        int,
        Field(ge=0, description="Rises with every event of the job; they may come in any order."),
    ]
    results_omitted: Annotated[
        bool,
        Field(description="True when the results are too large to come along: see resultUrl."),
    ] = False
    result_url: Annotated[
        Url | None, Field(description="Reads results that were left out, without an API key.")
    ] = None


class JobEvent(Answered):
    """What a callback tells: something that became of a job."""

    type: Annotated[str, Field(json_schema_extra={"enum": list(get_args(Event))})]
    timestamp: Annotated[Instant, Field(description="When it happened.")]
    data: EventData


class ChallengeData(Answered):
    """What is to be answered, and for which endpoint."""

    endpoint_id: str
    challenge: str


class VerificationEvent(Answered):
    """A challenge: whether callbacks are wanted here."""

    type: Literal["endpoint.verification"]
    timestamp: Annotated[Instant, Field(description="When it was made.")]
    data: ChallengeData


class ChallengeAnswer(BaseModel):
    """What shows that they are."""

    challenge: Annotated[str, Field(description="The same text that came in `data.challenge`.")]


class FlatEvent(EventData):
    """The same with the job's members beside the event's: what `payload: flat` asks for."""

    type: Annotated[
        str,
        Field(
            json_schema_extra={"enum": list(get_args(Event))}, description="The event, not the job."
        ),
    ]
    timestamp: Annotated[Instant, Field(description="When it happened.")]
    job_type: Annotated[str, Field(description="The job's own `type`.")]


class NoticeData(Answered):
    """The delivery that something happened to, or whose answer it was."""

    delivery_id: str
    endpoint_id: str
    origin: Annotated[str, Field(description="What the endpoint's URLs begin with.")]
    tenant: Annotated[str, Field(description="Whose it is.")]
    reason: Annotated[Reason, Field(description="Why.")]
    attempts: Annotated[Count, Field(description="That were made.")]
    last_status_code: Annotated[
        int | None, Field(description="Of the receiver's last answer, if there was one.")
    ]
    tags: Annotated[
        dict[str, Any],
        Field(description="What it was about: the event, and of a job `jobId` and `jobType`."),
    ]


class OperatorEvent(Answered):
    """What the operator is told: something that became of a callback."""

    type: Annotated[str, Field(json_schema_extra={"enum": list(get_args(OperatorNotice))})]
    timestamp: Annotated[Instant, Field(description="When it happened.")]
    data: NoticeData


class TicketDocument(Answered):
    """Read access to one job for whoever cannot send an API key."""

    ticket: str
    expires_at: Instant
    url: Url
    result_url: Url
    events_url: Url
    websocket_url: Url


class ProblemError(Answered):
    """A member at fault."""

    pointer: Annotated[str, Field(description="JSON pointer (RFC 6901); empty for the whole body.")]
    detail: str


class ProblemDocument(Answered):
    """Why a request was refused (RFC 9457)."""

    type: Annotated[Url, Field(description="A page that explains the code.")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: Annotated[Url, Field(description="What was asked for.")]
    code: Annotated[str, Field(json_schema_extra={"enum": sorted(PROBLEMS)})]
    errors: tuple[ProblemError, ...] | None = None
    job_id: Annotated[str | None, Field(description="The job it is about.")] = None
    job_status: Annotated[Status | None, Field(description="How an expired job ended.")] = None
    expired_at: Annotated[Instant | None, Field(description="When the job expired.")] = None


class TypeLimits(Answered):
    """What holds for jobs of a type that ask for nothing else."""

    timeout_seconds: float
    queue_timeout_seconds: float | None
    max_attempts: Annotated[int, Field(ge=1)]
    isolation: Isolation
    memory_bytes: int | None


class TypeDescription(Answered):
    """A job type on offer."""

    type: str
    summary: str
    input: Annotated[dict[str, Any], Field(description="JSON Schema of the input.")]
    result: Annotated[dict[str, Any], Field(description="JSON Schema of the results.")]
    example: Annotated[dict[str, Any], Field(description="An input that is valid.")]
    limits: TypeLimits


class TypeList(Answered):
    """The job types on offer."""

    items: tuple[TypeDescription, ...]


class FileDocument(Answered):
    """A file that was uploaded by itself."""

    file_id: Annotated[str, Field(description='What an input names it by: `{"fileId": "…"}`.')]
    href: Url
    size: Count
    sha256: Sha256
    content_type: str
    expires_at: Annotated[Instant, Field(description="When it goes unless a job uses it.")]


class EndpointLinks(Answered):
    """Where an endpoint is found."""

    self: Url


class LastFailure(Answered):
    """How the last attempt failed that says something of the receiver."""

    at: Instant
    outcome: Annotated[str, Field(description="As in an attempt of a delivery.")]
    status_code: int | None


class DisabledUrlDocument(Answered):
    """A URL that nothing is sent to."""

    url: str
    since: Instant
    reason: Annotated[
        Literal["gone", "operator"],
        Field(description="`gone`: the receiver answered 410. `operator`: a person said so."),
    ]


class EndpointDocument(Answered):
    """An origin that callbacks go to, and how it does."""

    id: str
    origin: Annotated[str, Field(description="Scheme, host, and port unless it is the usual one.")]
    created_at: Instant
    paused: Annotated[bool, Field(description="Whether its callbacks are held back.")]
    paused_since: Instant | None
    limit: Annotated[
        Count,
        Field(description="Callbacks that may be in flight now; adapts to its answers."),
    ]
    max_concurrency: Annotated[
        int | None, Field(description="What that may grow to; null for the gateway's own bound.")
    ]
    rate_per_second: Annotated[float | None, Field(description="Attempts a second, at most.")]
    inflight: Count
    waiting: Count
    breaker: Annotated[
        Literal["closed", "open"],
        Field(description="`open` after failures in a row: one attempt at a time, at openUntil."),
    ]
    consecutive_failures: Count
    open_until: Annotated[
        Instant | None, Field(description="Until then its breaker lets nothing through.")
    ]
    last_failure: LastFailure | None
    succeeded_at: Annotated[Instant | None, Field(description="When it last answered 2xx.")]
    verified: Annotated[bool, Field(description="Its receiver answered a challenge.")]
    verified_at: Instant | None
    disabled_urls: Annotated[
        tuple[DisabledUrlDocument, ...],
        Field(
            max_length=MAX_DISABLED_URLS,
            description="Nothing is sent to these. A list of endpoints shows a thousand in all.",
        ),
    ]
    links: Annotated[EndpointLinks, Field(alias="_links")]


class EndpointList(Answered):
    """The tenant's endpoints, oldest first."""

    items: tuple[EndpointDocument, ...]


class RetiringSecret(Answered):
    """A secret that was replaced and signs on for a while."""

    scheme: Scheme
    secret: Annotated[str | None, Field(description="Null for `v1a`, whose keys stay here.")]
    public_key: Annotated[str | None, Field(pattern="^whpk_", description="For `v1a` only.")]
    until: Instant


class SecretDocument(Answered):
    """What a receiver verifies signatures with. What signs by Ed25519 is shown to nobody."""

    secret: Annotated[str, Field(pattern="^whsec_", description="For `v1`.")]
    public_key: Annotated[
        str | None,
        Field(pattern="^whpk_", description="For `v1a`; null until something is signed so."),
    ]
    x_signature_secret: Annotated[
        str | None,
        Field(
            description="For `x-signature`, null until something is signed so: the key is the text"
            " as it is here, in UTF-8."
        ),
    ]
    retiring: Annotated[
        tuple[RetiringSecret, ...],
        Field(description="What was replaced and still signs, newest first for each scheme."),
    ]


class KeyLinks(Answered):
    """Where a key is found."""

    self: Url


class KeyDocument(Answered):
    """An API key, all but the key itself."""

    id: str
    name: str | None
    tenant: str
    scopes: tuple[Scope, ...]
    created_at: Instant
    expires_at: Instant | None
    links: Annotated[KeyLinks, Field(alias="_links")]


class NewKey(KeyDocument):
    """An API key, with the key itself."""

    key: Annotated[str, Field(description="Shown this once; the gateway keeps a hash only.")]


class KeyList(Answered):
    """One page of API keys, oldest first."""

    items: tuple[KeyDocument, ...]
    next_cursor: str | None


class AuditRecord(Answered):
    """What somebody asked for who was allowed to, written before it was done."""

    id: str
    at: Instant
    action: Annotated[str, Field(description="Later releases may have others.", examples=ACTIONS)]
    target: Annotated[str, Field(description="Identifier of what it was done to.")]
    tenant: Annotated[str, Field(description="Whose that is.")]
    key_id: Annotated[str, Field(description="Identifier of the API key that asked for it.")]
    key_tenant: Annotated[str, Field(description="Whose that is.")]
    client: Annotated[str | None, Field(description="Address it was asked from.")]
    request_id: Annotated[str | None, Field(description="Is on each line of the log about it.")]
    details: Annotated[dict[str, Any], Field(description="What else there is to say.")]


class AuditList(Answered):
    """One page of the audit log, newest first."""

    items: tuple[AuditRecord, ...]
    next_cursor: str | None


class TenantLinks(Answered):
    """Where to go on from a tenant."""

    keys: Url


class TenantDocument(Answered):
    """A tenant: whose jobs, keys and endpoints are apart from everybody else's."""

    id: str
    name: str | None
    created_at: Instant
    links: Annotated[TenantLinks, Field(alias="_links")]


class TenantList(Answered):
    """One page of tenants, oldest first."""

    items: tuple[TenantDocument, ...]
    next_cursor: str | None


class AttemptDocument(Answered):
    """One attempt at a delivery, and what came of it."""

    number: Annotated[int, Field(ge=1)]
    at: Instant | None
    duration_ms: int | None
    trigger: Annotated[str | None, Field(description="`schedule`, `replay`, `manual` or `test`.")]
    outcome: Annotated[str, Field(description="For programs, an open set; `delivered` is good.")]
    status_code: int | None
    next_attempt_at: Annotated[
        Instant | None, Field(description="When the one after it was to be.")
    ]
    hint: Annotated[str, Field(description="What it means and what to do, for people.")]
    answer: Annotated[
        str | None,
        Field(description="The receiver's answer, redacted; with the scope `operate` only."),
    ] = None
    answer_truncated: bool = False


class DeliveryLinks(Answered):
    """Where to go on from a delivery."""

    self: Url
    redeliver: Url
    endpoint: Url
    job: Url | None


class DeliveryDocument(Answered):
    """A callback that is owed, was delivered, or is dead."""

    id: Annotated[str, Field(description="What the receiver sees as `webhook-id`.")]
    event: str | None
    job_id: str | None
    job_type: str | None
    endpoint_id: str
    url: Annotated[str, Field(description="Its query, if it has one, as `***`.")]
    headers: Annotated[dict[str, str], Field(description="Custom ones; their values as `***`.")]
    state: State
    reason: Annotated[Reason | None, Field(description="Why it is dead.")]
    created_at: Instant
    ended_at: Instant | None
    next_attempt_at: Instant | None
    last_status_code: int | None
    attempt_count: Count
    attempts: Annotated[tuple[AttemptDocument, ...], Field(description="The last 20 of them.")]
    links: Annotated[DeliveryLinks, Field(alias="_links")]


class DeliveryList(Answered):
    """The callbacks of a job, its end's first."""

    items: tuple[DeliveryDocument, ...]
