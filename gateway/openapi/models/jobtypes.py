"""The job types on offer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from gateway.jobtypes import Isolation
from gateway.openapi.models.base import Answered


class TypeLimits(Answered):
    """What holds for jobs of a type that ask for nothing else."""

    timeout_seconds: float
    queue_timeout_seconds: float | None
    max_attempts: Annotated[int, Field(ge=1)]
    isolation: Isolation
    memory_bytes: int | None


class TypeDescription(Answered):
    """A job type on offer."""

    type: str
    summary: str
    input: Annotated[dict[str, Any], Field(description="JSON Schema of the input.")]
    result: Annotated[dict[str, Any], Field(description="JSON Schema of the results.")]
    example: Annotated[dict[str, Any], Field(description="An input that is valid.")]
    limits: TypeLimits


class TypeList(Answered):
    """The job types on offer."""

    items: tuple[TypeDescription, ...]
