"""Jobs, and read access to one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.models import Priority, Status
from gateway.openapi.models.base import Answered, Count, Instant, Url

Results = Annotated[
    Any, Field(description="What the job type promises, once completed; null before.")
]

Percent = Annotated[int, Field(ge=0, le=100)]


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
            description="For programs, an open set: `handler_error`, `timeout`, `memory_limit`, "
            "`queue_timeout`, `orphaned`, `poison`, `upstream_error`, and what handlers raise."
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


class TicketDocument(Answered):
    """Read access to one job for whoever cannot send an API key."""

    ticket: str
    expires_at: Instant
    url: Url
    result_url: Url
    events_url: Url
    websocket_url: Url
