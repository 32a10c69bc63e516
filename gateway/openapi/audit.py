"""What `gateway.api.audit` answers: what admins and operators did."""

from __future__ import annotations

from config.clock import rfc3339
from gateway.openapi.examples import AT, identifier
from gateway.openapi.keys import KEY_ID, TAG
from gateway.openapi.models.audit import AuditList
from gateway.openapi.operations import CURSOR, LIMIT, NEXT_LINK, Operation, json_answer

_TEXT = """\
What was done with keys of the scopes `operate` and `admin` to what is the tenant's: secrets shown
and rotated, callbacks sent again, endpoints changed, API keys made and revoked. What a key of the
tenant's did to another one is here, too.

A record is written before what it tells of is done; without a record nothing is. So one may tell of
something that then failed."""


def operations() -> tuple[Operation, ...]:
    """Return the operation on the audit log."""
    record = {
        "id": identifier("aud"),
        "at": rfc3339(AT),
        "action": "endpoint.secret_read",
        "target": identifier("ep"),
        "tenant": "acme",
        "keyId": KEY_ID,
        "keyTenant": "acme",
        "client": "203.0.113.9",
        "requestId": "req_0example0example0examp",
        "details": {},
    }
    return (
        Operation(
            method="get",
            path="/v1/admin/audit",
            id="listAudit",
            tag=TAG,
            summary="Read the audit log",
            text=_TEXT,
            scope="admin",
            parameters=(LIMIT, CURSOR),
            answers=(
                json_answer(
                    200,
                    "One page, newest first.",
                    AuditList,
                    {"items": [record], "nextCursor": None},
                    headers=(NEXT_LINK,),
                ),
            ),
            problems=("invalid_parameter",),
        ),
    )
