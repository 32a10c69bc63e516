"""Callbacks, attempt by attempt."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from delivery.models import Reason, State
from gateway.openapi.models.base import Answered, Count, Instant, Url


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
    url: Annotated[
        str | None,
        Field(
            description="Its query, if it has one, as `***`; all but its origin when it was"
            " delivered and can be sent no more."
        ),
    ]
    headers: Annotated[
        dict[str, str],
        Field(description="Custom ones, as long as it can be sent; their values as `***`."),
    ]
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
