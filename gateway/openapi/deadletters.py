"""What `api_deadletters` answers: callbacks that were not delivered, and jobs that failed."""

from __future__ import annotations

from typing import Any, get_args

from config.clock import HOUR, SECOND, rfc3339
from delivery.letters import AGE_BANDS
from gateway.api.deliveries import attempt_document
from gateway.auth import DEFAULT_TENANT
from gateway.deadletters import Kind
from gateway.listing import make_cursor
from gateway.openapi.deliveries import DELIVERY_ID
from gateway.openapi.examples import AT, CALLBACK_URL, JOB_ID, Examples, identifier
from gateway.openapi.models.deadletters import DeadLetterList, DeadLetterStats
from gateway.openapi.operations import (
    CURSOR,
    LIMIT,
    NEXT_LINK,
    Operation,
    Parameter,
    json_answer,
    links,
)

TAG = "Dead letters"

_TEXT = {"type": "string", "minLength": 1, "maxLength": 2048}
_INSTANT = {"type": "string", "format": "date-time"}
_FILTERS = (
    Parameter(
        name="kind",
        where="query",
        text="Deliveries that are dead, or jobs that failed.",
        schema={"type": "string", "enum": list(get_args(Kind)), "default": "delivery"},
        example="delivery",
    ),
    Parameter(
        name="reason",
        where="query",
        text="Why they are dead.",
        schema=_TEXT,
        example="exhausted",
    ),
    Parameter(
        name="endpoint",
        where="query",
        text="For this endpoint, by its identifier or its origin.",
        schema=_TEXT,
        example="https://client.example",
    ),
    Parameter(
        name="type",
        where="query",
        text="About jobs of this type.",
        schema=_TEXT,
        example="document.analyze",
    ),
    Parameter(name="job", where="query", text="About this job.", schema=_TEXT, example=JOB_ID),
    Parameter(
        name="diedAfter",
        where="query",
        text="Died then or later.",
        schema=_INSTANT,
        example=rfc3339(AT - HOUR),
    ),
    Parameter(
        name="diedBefore",
        where="query",
        text="Died earlier.",
        schema=_INSTANT,
        example=rfc3339(AT + HOUR),
    ),
    Parameter(
        name="tenant",
        where="query",
        text="Another tenant's; needs the scope `admin`.",
        schema={"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
        example=DEFAULT_TENANT,
    ),
)


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operations on dead letters."""
    letter = _letter(examples)
    page = {"items": [letter], "nextCursor": make_cursor((AT, DELIVERY_ID))}
    return (
        Operation(
            method="get",
            path="/v1/dead-letters",
            id="listDeadLetters",
            tag=TAG,
            summary="List dead letters",
            text="Oldest first. A page may hold fewer than were asked for and still lead on:"
            " `nextCursor` alone says whether there is more. What receivers answered is shown to"
            " keys with the scope `operate` only.",
            scope="read",
            parameters=(*_FILTERS, LIMIT, CURSOR),
            answers=(
                json_answer(
                    200,
                    "One page.",
                    DeadLetterList,
                    page,
                    headers=(NEXT_LINK,),
                    links=links("deliveryId", "/items/0/id", "getDelivery"),
                ),
            ),
            problems=("invalid_parameter",),
        ),
        Operation(
            method="get",
            path="/v1/dead-letters/stats",
            id="countDeadLetters",
            tag=TAG,
            summary="Count dead letters",
            text="By reason, endpoint, job type and age.",
            scope="read",
            parameters=_FILTERS,
            answers=(json_answer(200, "How many there are.", DeadLetterStats, _STATS),),
            problems=("invalid_parameter",),
        ),
    )


def _letter(examples: Examples) -> dict[str, Any]:
    endpoint = identifier("ep")
    attempt = {
        "number": 10,
        "at": rfc3339(AT),
        "durationMs": 5_002,
        "trigger": "schedule",
        "outcome": "connect",
        "answer": None,
    }
    return {
        "kind": "delivery",
        "id": DELIVERY_ID,
        "tenant": "example",
        "reason": "exhausted",
        "diedAt": rfc3339(AT + 5 * SECOND),
        "createdAt": rfc3339(AT - 75 * HOUR),
        "jobId": JOB_ID,
        "jobType": "document.analyze",
        "event": "job.completed",
        "endpointId": endpoint,
        "origin": "https://client.example",
        "url": CALLBACK_URL,
        "attemptCount": 10,
        "lastStatusCode": None,
        "lastAttempt": attempt_document(attempt, with_answer=True),
        "error": None,
        "_links": {
            "self": examples.urls.instance(f"/v1/deliveries/{DELIVERY_ID}"),
            "endpoint": examples.urls.endpoint(endpoint),
            "job": examples.urls.job(JOB_ID),
        },
    }


_STATS: dict[str, Any] = {
    "kind": "delivery",
    "total": 500,
    "cut": False,
    "reasons": [{"reason": "exhausted", "count": 497}, {"reason": "gone", "count": 3}],
    "endpoints": [
        {"endpointId": identifier("ep"), "origin": "https://client.example", "count": 500}
    ],
    "types": [{"type": "document.analyze", "count": 500}],
    "ages": [{"age": age, "count": 500 if age == "1d" else 0} for age in AGE_BANDS],
}
