"""What callbacks tell: of jobs, of endpoints, and of callbacks to the operator."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field

from delivery.models import Reason
from delivery.notices import Event as OperatorNotice
from gateway.openapi.models.base import Answered, Count, Instant, Url
from gateway.openapi.models.jobs import JobBase, Results
from gateway.schemas.jobs import Event


class EventData(JobBase):
    """A job as an event left it."""

    results: Results
    sequence: Annotated[
        int,
        Field(ge=0, description="Rises with every event of the job; they may come in any order."),
    ]
    results_omitted: Annotated[
        bool,
        Field(description="True when the results are too large to come along: see resultUrl."),
    ] = False
    result_url: Annotated[
        Url | None, Field(description="Reads results that were left out, without an API key.")
    ] = None


class JobEvent(Answered):
    """What a callback tells: something that became of a job."""

    type: Annotated[str, Field(json_schema_extra={"enum": list(get_args(Event))})]
    timestamp: Annotated[Instant, Field(description="When it happened.")]
    data: EventData


class ChallengeData(Answered):
    """What is to be answered, and for which endpoint."""

    endpoint_id: str
    challenge: str


class VerificationEvent(Answered):
    """A challenge: whether callbacks are wanted here."""

    type: Literal["endpoint.verification"]
    timestamp: Annotated[Instant, Field(description="When it was made.")]
    data: ChallengeData


class ChallengeAnswer(BaseModel):
    """What shows that they are."""

    challenge: Annotated[str, Field(description="The same text that came in `data.challenge`.")]


class FlatEvent(EventData):
    """The same with the job's members beside the event's: what `payload: flat` asks for."""

    type: Annotated[
        str,
        Field(
            json_schema_extra={"enum": list(get_args(Event))}, description="The event, not the job."
        ),
    ]
    timestamp: Annotated[Instant, Field(description="When it happened.")]
    job_type: Annotated[str, Field(description="The job's own `type`.")]


class NoticeData(Answered):
    """The delivery that something happened to, or whose answer it was."""

    delivery_id: str
    endpoint_id: str
    origin: Annotated[str, Field(description="What the endpoint's URLs begin with.")]
    tenant: Annotated[str, Field(description="Whose it is.")]
    reason: Annotated[Reason, Field(description="Why.")]
    attempts: Annotated[Count, Field(description="That were made.")]
    last_status_code: Annotated[
        int | None, Field(description="Of the receiver's last answer, if there was one.")
    ]
    tags: Annotated[
        dict[str, Any],
        Field(description="What it was about: the event, and of a job `jobId` and `jobType`."),
    ]


class OperatorEvent(Answered):
    """What the operator is told: something that became of a callback."""

    type: Annotated[str, Field(json_schema_extra={"enum": list(get_args(OperatorNotice))})]
    timestamp: Annotated[Instant, Field(description="When it happened.")]
    data: NoticeData
