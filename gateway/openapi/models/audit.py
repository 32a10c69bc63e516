"""What admins and operators did."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field

from gateway.audit import Action
from gateway.openapi.models.base import Answered, Instant

ACTIONS = list(get_args(Action))


class AuditRecord(Answered):
    """What somebody asked for who was allowed to, written before it was done."""

    id: str
    at: Instant
    action: Annotated[str, Field(description="Later releases may have others.", examples=ACTIONS)]
    target: Annotated[str, Field(description="Identifier of what it was done to.")]
    tenant: Annotated[str, Field(description="Whose that is.")]
    key_id: Annotated[str, Field(description="Identifier of the API key that asked for it.")]
    key_tenant: Annotated[str, Field(description="Whose that is.")]
    client: Annotated[str | None, Field(description="Address it was asked from.")]
    request_id: Annotated[str | None, Field(description="Is on each line of the log about it.")]
    details: Annotated[dict[str, Any], Field(description="What else there is to say.")]


class AuditList(Answered):
    """One page of the audit log, newest first."""

    items: tuple[AuditRecord, ...]
    next_cursor: str | None
