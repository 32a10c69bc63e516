"""What receivers are called with: the events of jobs, each with its schema and a sample."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from delivery.notices import Event as OperatorNotice
from gateway.openapi.examples import AT, Examples, identifier
from gateway.openapi.models.events import (
    ChallengeAnswer,
    FlatEvent,
    JobEvent,
    OperatorEvent,
    VerificationEvent,
)
from gateway.openapi.operations import Content, Example, Parameter
from gateway.ownership import VERIFICATION, challenge_body
from gateway.schemas.jobs import Event

_SAYS: Mapping[Event, str] = {
    "job.completed": "The job is done, and has results.",
    "job.failed": "The job failed for good.",
    "job.cancelled": "The job was cancelled.",
    "job.started": "The first attempt at the job begins. Sent when asked for only.",
    "job.expiring": "Results that nobody has read are about to go. Sent when asked for only.",
}

_TELLS: Mapping[OperatorNotice, str] = {
    "endpoint.disabled": "A callback URL answered 410 and is called no more. Sent to the operator.",
    "delivery.exhausted": "A callback is dead, and why. Sent to the operator.",
}

_CHALLENGE = "q7Zr0eVd3mXk9WcT5bYh2uJn8aLp4sGf"

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
        text="Standard Webhooks, over `id.timestamp.body`: `v1,` and the base64 of HMAC-SHA256"
        " under the endpoint's secret; or `v1a,` and that of Ed25519 under its key, where the"
        " callback asked for it. Several, divided by spaces, while a secret is changed.",
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
MORE_HEADERS = (
    Parameter(
        name="x-signature",
        where="header",
        text="Where the callback asked for `x-signature`: the hexadecimal HMAC-SHA256 of the body"
        " under that secret of the endpoint. It covers neither id nor time, which"
        " `webhook-signature` does.",
        schema={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        example="757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    ),
    Parameter(
        name="traceparent",
        where="header",
        text="W3C Trace Context: goes on from the `traceparent` that the job was submitted with;"
        " absent if there was none, unless the gateway records traces.",
        example="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    Parameter(
        name="tracestate",
        where="header",
        text="W3C Trace Context: the `tracestate` that came with that `traceparent`.",
        example="rojo=00f067aa0ba902b7",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request the gateway makes.

    Attributes:
        event: what it tells.
        summary: a few words.
        headers: that are always there.
        more_headers: that may be.
        body: what is sent.
        answer: what an answer with 2xx has to say; None where it may say anything.
    """

    event: str
    summary: str
    headers: tuple[Parameter, ...]
    more_headers: tuple[Parameter, ...]
    body: Content
    answer: Content | None = None


def messages(examples: Examples) -> tuple[Message, ...]:
    """Return what a receiver may be called with."""
    return tuple(
        Message(
            event=event,
            summary=_SAYS[event],
            headers=HEADERS,
            more_headers=MORE_HEADERS,
            body=Content(
                schema=event_schema(event),
                examples={
                    "standard": Example(summary=_SAYS[event], value=examples.event(event)),
                    "flat": Example(
                        summary="The same, as payload: flat",
                        value=examples.event(event, payload="flat"),
                    ),
                },
            ),
        )
        for event in get_args(Event)
    )


def challenge() -> Message:
    """Return what an endpoint is asked with."""
    body = json.loads(challenge_body(identifier("ep"), _CHALLENGE, at=AT))
    return Message(
        event=VERIFICATION,
        summary="Are callbacks wanted here? To be answered with 2xx and the challenge.",
        headers=HEADERS,
        more_headers=(),
        body=Content(
            schema=VerificationEvent,
            examples={"example": Example(summary="A challenge.", value=body)},
        ),
        answer=Content(
            schema=ChallengeAnswer,
            examples={"example": Example(summary="Its answer.", value={"challenge": _CHALLENGE})},
        ),
    )


def notices(examples: Examples) -> tuple[Message, ...]:
    """Return what the operator may be called with."""
    return tuple(
        Message(
            event=event,
            summary=_TELLS[event],
            headers=HEADERS,
            more_headers=(),
            body=Content(
                schema={"allOf": [OperatorEvent], "properties": {"type": {"const": event}}},
                examples={
                    "example": Example(summary=_TELLS[event], value=examples.notice(event)),
                },
            ),
        )
        for event in get_args(OperatorNotice)
    )


def event_schema(event: Event) -> Mapping[str, Any]:
    """Return the schema of the body that tells `event`."""
    return {"anyOf": [JobEvent, FlatEvent], "properties": {"type": {"const": event}}}
