"""What `api_lists` answers: the tenant's jobs, page by page."""

from __future__ import annotations

from typing import get_args

from config.clock import SECOND, rfc3339
from gateway.listing import MAX_LIMIT, make_cursor
from gateway.models import Status
from gateway.openapi.examples import AT, JOB_ID, Examples
from gateway.openapi.models.jobs import JobList
from gateway.openapi.operations import (
    CURSOR,
    LIMIT,
    NEXT_LINK,
    Operation,
    Parameter,
    json_answer,
)

_INSTANT = {"type": "string", "format": "date-time"}


def operations(examples: Examples, tag: str) -> tuple[Operation, ...]:
    """Return the operations that list jobs."""
    item = {name: value for name, value in examples.completed.items() if name != "results"}
    page = {"items": [item], "nextCursor": make_cursor((AT, JOB_ID))}
    return (
        Operation(
            method="get",
            path="/v1/jobs",
            id="listJobs",
            tag=tag,
            summary="List jobs",
            text="Newest first, without their results. A page may hold fewer than were asked for,"
            f" {MAX_LIMIT} at the most, and still lead on: `nextCursor` alone says whether there"
            " is more.",
            scope="read",
            parameters=(
                Parameter(
                    name="status",
                    where="query",
                    text="In this state.",
                    schema={"type": "string", "enum": list(get_args(Status))},
                    example="completed",
                ),
                Parameter(
                    name="type",
                    where="query",
                    text="Of this type.",
                    schema={"type": "string", "minLength": 1, "maxLength": 100},
                    example="document.analyze",
                ),
                Parameter(
                    name="createdAfter",
                    where="query",
                    text="Made then or later.",
                    schema=_INSTANT,
                    example=rfc3339(AT - SECOND),
                ),
                Parameter(
                    name="createdBefore",
                    where="query",
                    text="Made earlier.",
                    schema=_INSTANT,
                    example=rfc3339(AT + SECOND),
                ),
                LIMIT,
                CURSOR,
            ),
            answers=(json_answer(200, "One page.", JobList, page, headers=(NEXT_LINK,)),),
            problems=("invalid_parameter",),
        ),
    )
