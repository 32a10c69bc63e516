"""What receivers are called with: the events of jobs, each with its schema and a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from gateway.openapi.examples import Examples, identifier
from gateway.openapi.models import JobEvent
from gateway.openapi.operations import Content, Example, Parameter
from gateway.schemas import Event

_SAYS: Mapping[Event, str] = {
    "job.completed": "The job is done, and has results.",
    "job.failed": "The job failed for good.",
    "job.cancelled": "The job was cancelled.",
    "job.expiring": "Results that nobody has read are about to go. Sent when asked for only.",
}

HEADERS = (
    Parameter(
        name="webhook-id",
        where="header",
        text="The same for every attempt and replay: set if absent, and drop what was there.",
        example=identifier("msg"),
    ),
    Parameter(
        name="webhook-timestamp",
        where="header",
        text="Of this attempt, in seconds since the epoch. Refuse what is off by 5 minutes.",
        schema={"type": "string", "pattern": "^[0-9]+$"},
        example="1795500012",
    ),
    Parameter(
        name="webhook-signature",
        where="header",
        text="Standard Webhooks: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` under"
        " the endpoint's secret; several, divided by spaces, while a secret is changed.",
        example="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    Parameter(
        name="gateway-attempt",
        where="header",
        text="Which attempt this is, from 1.",
        schema={"type": "string", "pattern": "^[0-9]+$"},
        example="1",
    ),
    Parameter(
        name="gateway-trigger",
        where="header",
        text="What caused it.",
        schema={"type": "string", "enum": ["schedule", "replay", "manual", "test"]},
        example="schedule",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request the gateway makes.

    Attributes:
        event: what it tells.
        summary: a few words.
        headers: that are always there.
        body: what is sent.
    """

    event: str
    summary: str
    headers: tuple[Parameter, ...]
    body: Content


def messages(examples: Examples) -> tuple[Message, ...]:
    """Return what a receiver may be called with."""
    return tuple(
        Message(
            event=event,
            summary=_SAYS[event],
            headers=HEADERS,
            body=Content(
                schema=event_schema(event),
                examples={
                    "example": Example(summary=_SAYS[event], value=examples.event(event)),
                },
            ),
        )
        for event in get_args(Event)
    )


def event_schema(event: Event) -> Mapping[str, Any]:
    """Return the schema of the body that tells `event`."""
    return {"allOf": [JobEvent], "properties": {"type": {"const": event}}}
