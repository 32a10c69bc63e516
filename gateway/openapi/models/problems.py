"""Why a request was refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.models import Status
from gateway.openapi.models.base import Answered, Instant, Url
from gateway.problems import PROBLEMS


class ProblemError(Answered):
    """A member at fault."""

    pointer: Annotated[str, Field(description="JSON pointer (RFC 6901); empty for the whole body.")]
    detail: str


class ProblemDocument(Answered):
    """Why a request was refused (RFC 9457)."""

    type: Annotated[Url, Field(description="A page that explains the code.")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: Annotated[Url, Field(description="What was asked for.")]
    code: Annotated[str, Field(json_schema_extra={"enum": sorted(PROBLEMS)})]
    errors: tuple[ProblemError, ...] | None = None
    job_id: Annotated[str | None, Field(description="The job it is about.")] = None
    job_status: Annotated[Status | None, Field(description="How an expired job ended.")] = None
    expired_at: Annotated[Instant | None, Field(description="When the job expired.")] = None
