"""What was not delivered and which jobs failed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from delivery.letters import AGE_BANDS
from gateway.openapi.models.base import Answered, Count, Instant, Url
from gateway.openapi.models.deliveries import AttemptDocument

Kind = Literal["delivery", "job"]

Cause = Annotated[
    str,
    Field(description="Of a delivery why it is dead, of a job its `errorCode`."),
]


class DeadLetterLinks(Answered):
    """Where to go on from a dead letter."""

    self: Url
    endpoint: Url | None
    job: Url | None


class DeadLetterDocument(Answered):
    """A callback that was not delivered, or a job that failed and was not run again."""

    kind: Kind
    id: Annotated[str, Field(description="The delivery, or the job.")]
    tenant: str
    reason: Cause
    died_at: Instant
    created_at: Instant
    job_id: Annotated[str | None, Field(description="The job that it is about.")]
    job_type: str | None
    event: Annotated[str | None, Field(description="What the callback was to tell.")]
    endpoint_id: str | None
    origin: Annotated[str | None, Field(description="Of the endpoint.")]
    url: Annotated[str | None, Field(description="Where the callback was to go.")]
    attempt_count: Count
    last_status_code: int | None
    last_attempt: Annotated[
        AttemptDocument | None, Field(description="Of a delivery; all are in its document.")
    ]
    error: Annotated[str | None, Field(description="Of a job: a sentence for people.")]
    links: Annotated[DeadLetterLinks, Field(alias="_links")]


class DeadLetterList(Answered):
    """One page of dead letters, oldest first."""

    items: tuple[DeadLetterDocument, ...]
    next_cursor: Annotated[str | None, Field(description="Of the next page; null at the end.")]


class ReasonCount(Answered):
    """How many are dead for one reason."""

    reason: Cause
    count: Count


class EndpointCount(Answered):
    """How many were for one endpoint."""

    endpoint_id: str | None
    origin: str | None
    count: Count


class TypeCount(Answered):
    """How many are about jobs of one type."""

    type: str | None
    count: Count


class AgeCount(Answered):
    """How many died so long ago."""

    age: Annotated[
        str,
        Field(
            description="Up to an hour ago, up to a day, and so on.",
            json_schema_extra={"enum": list(AGE_BANDS)},
        ),
    ]
    count: Count


class DeadLetterStats(Answered):
    """Dead letters, counted by what they have in common; the most frequent first."""

    kind: Kind
    total: Count
    cut: Annotated[
        bool, Field(description="There are more than were looked at: these are the oldest.")
    ]
    reasons: tuple[ReasonCount, ...]
    endpoints: tuple[EndpointCount, ...]
    types: tuple[TypeCount, ...]
    ages: tuple[AgeCount, ...]
