"""What is sent to have dead letters replayed or purged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from delivery.replays import MAX_NAMED
from gateway.faults import Fault
from gateway.problems import Problem
from gateway.schemas.body import Body, CallbackUrl, NullableInstant, Text, parse, summary_of


class LetterFilter(Body):
    """Which dead letters are meant: `filter` of a replay. It says something at least."""

    reason: Annotated[Text | None, Field(description="Why they are dead.")] = None
    endpoint: Annotated[
        Text | None, Field(description="An endpoint, by its identifier or its origin.")
    ] = None
    type: Annotated[Text | None, Field(description="The type of their jobs.")] = None
    job: Annotated[Text | None, Field(description="The job they are about.")] = None
    died_after: Annotated[NullableInstant, Field(description="Died then or later.")] = None
    died_before: Annotated[NullableInstant, Field(description="Died earlier.")] = None


class ReplayRequest(Body):
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


def parse_replay(value: Any) -> ReplayRequest:
    """Return `value`, decoded JSON, as the wish for a replay.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    request = parse(ReplayRequest, value)
    faults = list(_replay_faults(request))
    if faults:
        raise Problem("invalid_request", summary_of(faults), faults=faults)
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
