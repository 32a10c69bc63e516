"""What `api_streams` answers: jobs as they go on, and tickets to watch them with."""

from __future__ import annotations

from config.clock import SECOND, rfc3339
from gateway.openapi.examples import AT, JOB_ID, TICKET, Examples
from gateway.openapi.models.jobs import JobDocument, TicketDocument
from gateway.openapi.operations import (
    LOCATION,
    TEXT,
    Answer,
    Content,
    Example,
    Header,
    Operation,
    Parameter,
    json_answer,
    path_parameter,
)
from gateway.preferences import MAX_WAIT

TAG = "Watching"

APPLIED = Header(name="Preference-Applied", text="What of Prefer was heeded.", always=False)
PREFER = Parameter(
    name="Prefer",
    where="header",
    text=f"`wait=N` holds the answer back for up to N seconds, {MAX_WAIT} at the most (RFC 7240).",
    example="wait=0",
)
_LAST = Parameter(
    name="Last-Event-ID",
    where="header",
    text="The last event that was seen, as a browser's EventSource says by itself.",
    example="4",
)
_JOB = path_parameter("jobId", "The job.", JOB_ID)


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operations on watched jobs."""
    return (_events(), _ticket(examples))


def waited(examples: Examples) -> Answer:
    """Return the answer to a job that ended while its client waited."""
    return json_answer(
        200,
        "The job ended within the seconds of `Prefer: wait`.",
        JobDocument,
        examples.completed,
        headers=(LOCATION, APPLIED),
    )


def _events() -> Operation:
    sample = 'id: 4\nevent: progress\ndata: {"jobId":"…","status":"processing","progress":75}\n\n'
    content = Content(
        media_type="text/event-stream",
        schema=TEXT,
        examples={"progress": Example(summary="One event", value=sample)},
    )
    return Operation(
        method="get",
        path="/v1/jobs/{jobId}/events",
        id="watchJob",
        tag=TAG,
        summary="Watch a job",
        text="Server-Sent Events `snapshot`, `progress`, `expiring`, `completed`, `failed` and"
        " `cancelled`; the data is the job document, the id its revision. The stream ends with the"
        " job.\n\nA WebSocket to `/v1/jobs/{jobId}`, or to `/jobs/{jobId}`, gets the same documents"
        " as text frames, and is closed with 1000 after the last one. What is refused is answered"
        " before the upgrade, as here.",
        scope="read",
        ticket=True,
        parameters=(_JOB, _LAST),
        answers=(
            Answer(status=200, text="The stream.", content=(content,)),
            Answer(status=204, text="The end was told already."),
        ),
        problems=("not_found", "job_expired", "too_many_watchers"),
    )


def _ticket(examples: Examples) -> Operation:
    urls = examples.urls
    ticket = {
        "ticket": TICKET,
        "expiresAt": rfc3339(AT + 900 * SECOND),
        "url": urls.job(JOB_ID, TICKET),
        "resultUrl": urls.result(JOB_ID, TICKET),
        "eventsUrl": urls.events(JOB_ID, TICKET),
        "websocketUrl": urls.websocket(JOB_ID, TICKET),
    }
    return Operation(
        method="post",
        path="/v1/jobs/{jobId}/ticket",
        id="makeTicket",
        tag=TAG,
        summary="Make a ticket",
        text="Reads this job, its result and its files, and watches it, without an API key: for"
        " browsers' EventSource and WebSocket, and for third parties. It can be used again and"
        " again until it expires.",
        scope="read",
        parameters=(_JOB,),
        answers=(json_answer(201, "The ticket.", TicketDocument, ticket),),
        problems=("not_found", "job_expired"),
    )
