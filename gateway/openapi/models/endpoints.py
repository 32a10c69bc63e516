"""Where callbacks go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from delivery.endpoints import MAX_DISABLED_URLS
from gateway.openapi.models.base import Answered, Count, Instant, Url


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
