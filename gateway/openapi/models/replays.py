"""Dead letters, tried again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from delivery.replays import ReplayState
from gateway.openapi.models.base import Answered, Count, Instant, Url
from gateway.openapi.models.deadletters import Kind


class ReplayFilter(Answered):
    """Which dead letters are meant; null says nothing."""

    reason: str | None
    endpoint: str | None
    type: str | None
    job: str | None
    died_after: Instant | None
    died_before: Instant | None


class ReplayProgress(Answered):
    """How far a replay has come. What comes of jobs is null: those jobs tell it."""

    total: Annotated[Count, Field(description="To look at, as many as there were at its start.")]
    examined: Annotated[Count, Field(description="Looked at so far.")]
    matched: Annotated[Count, Field(description="Of those, the ones that are meant.")]
    replayed: Count
    purged: Count
    skipped: Annotated[
        dict[str, Count], Field(description="Left alone, by why: `pending`, `unknown`, …")
    ]
    attempted: Annotated[
        Count | None, Field(description="Replayed ones whose first attempt is over.")
    ]
    delivered: Annotated[Count | None, Field(description="Replayed ones that were taken.")]
    failed: Annotated[
        Count | None, Field(description="Attempted and not taken so far; more attempts may follow.")
    ]
    pending: Annotated[Count | None, Field(description="Neither delivered nor dead so far.")]
    dead: Annotated[Count | None, Field(description="Replayed ones that died again.")]


class ReplayFailure(Answered):
    """Something replayed that was not taken, at its first attempt or for good."""

    id: Annotated[str, Field(description="The delivery.")]
    at: Instant
    outcome: Annotated[str | None, Field(description="Of its first attempt.")]
    status_code: int | None
    reason: Annotated[str | None, Field(description="Why it is dead again.")]
    hint: Annotated[str | None, Field(description="What the outcome means and what to do.")]


class ReplayLinks(Answered):
    """Where to go on from a replay."""

    self: Url
    cancel: Url
    resume: Url


class ReplayDocument(Answered):
    """Dead letters that are sent again, run again or purged together."""

    id: str
    kind: Kind
    action: Literal["replay", "purge"]
    state: Annotated[
        ReplayState,
        Field(
            description="`completed`: all are moved, and what was sent may still be under way."
            " `cancelled` and `stopped` ones can be resumed."
        ),
    ]
    reason: Annotated[
        str | None,
        Field(
            description="Why it is stopped: `failure_rate`, `destination_not_allowed`,"
            " `too_many_endpoints`, `unreadable`."
        ),
    ]
    ids: Annotated[Count | None, Field(description="How many were named.")]
    filter: ReplayFilter | None
    all: bool
    to_url: str | None
    rate: float | None
    max: int | None
    dry_run: bool
    stop_at_failure_rate: float | None
    created_at: Instant
    created_by: Annotated[str, Field(description="The API key that asked for it.")]
    updated_at: Instant
    died_before: Annotated[Instant, Field(description="What died later is no part of it.")]
    progress: ReplayProgress
    by_reason: Annotated[
        dict[str, Count], Field(description="Those that matched, by why they were dead.")
    ]
    failures: Annotated[tuple[ReplayFailure, ...], Field(description="The last ones.")]
    links: Annotated[ReplayLinks, Field(alias="_links")]


class ReplayList(Answered):
    """The tenant's replays, newest first."""

    items: tuple[ReplayDocument, ...]
