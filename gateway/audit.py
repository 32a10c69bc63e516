"""The audit log: what admins and operators did, kept in the store and written to the log.

A record is written *before* what it tells of is done, and when it cannot be written, that is not
done: nothing is ever shown or changed without a record. The other way round, a record may tell of
something that then failed: it says that somebody who was allowed to asked for it.

Each tenant has a log of its own, bounded by count and by age. What is done to another tenant's
object, as only the API keys are, is in the logs of both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import HTTPConnection

from config import ids
from config.clock import SECOND, Clock
from config.scripts import META_PREFIX, Argument, Call, load_script
from config.sections import ApiSettings
from config.store import Store
from gateway.auth import DEFAULT_TENANT, Principal
from gateway.listing import Place
from gateway.middleware import current_request_id
from gateway.models import compact

log = logging.getLogger("audit")

Action = Literal[
    "dead_letters.purge",
    "delivery.redeliver",
    "endpoint.delete",
    "endpoint.pause",
    "endpoint.resume",
    "endpoint.secret_read",
    "endpoint.secret_retire",
    "endpoint.secret_rotate",
    "endpoint.test",
    "endpoint.update",
    "endpoint.verify",
    "key.create",
    "key.revoke",
    "replay.cancel",
    "replay.create",
    "replay.resume",
    "sealing.rewrap",
    "tenant.create",
]
"""What is recorded: the noun it is done to, and what is done."""

Detail = str | int | float | bool | Sequence[str] | None

BESIDE_THE_STORE = "beside-the-store"
"""Stands for the key of whoever works on the store without the API, by a script of the operator."""

_MAX_TEXT = 200
_MAX_MEMBERS = 20
_MAX_DETAILS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that somebody did.

    Attributes:
        id: names the record.
        at: when, µs of the store's clock.
        action: what was done.
        target: identifier of what it was done to.
        tenant: whose that is.
        key_id: identifier of the API key that asked for it.
        key_tenant: whose that is.
        client: address it was asked from, as far as trusted proxies tell; None when nobody knows.
        request_id: of the request, which is on each line of the log about it; None without one.
        details: what else there is to say; never a secret.
    """

    id: str
    at: int
    action: str
    target: str
    tenant: str
    key_id: str
    key_tenant: str
    client: str | None
    request_id: str | None
    details: Mapping[str, Any]


class AuditLog:
    """The audit logs of all tenants, in the durable store.

    Args:
        store: keeps them.
        clock: the store's time.
        limits: how many records are kept, and for how long.
    """

    def __init__(self, store: Store, clock: Clock, limits: ApiSettings) -> None:
        self._store = store
        self._clock = clock
        self._most = limits.audit_max_records
        self._life = int(limits.audit_retention_seconds * SECOND)

    async def record(
        self,
        request: HTTPConnection,
        principal: Principal,
        action: Action,
        target: str,
        *,
        tenant: str | None = None,
        **details: Detail,
    ) -> None:
        """Record what is about to be done for `request`.

        Call it when everything was checked and nothing done yet, and let what it raises end the
        request.

        Args:
            request: whose client asks.
            principal: who asks.
            action: what for.
            target: identifier of what it is done to.
            tenant: whose that is, if not the principal's.
            details: what else there is to say, a few short values; never a secret.

        Raises:
            StoreUnavailable: it may not have been written.
        """
        await self._write(
            action,
            target,
            tenants=(principal.tenant, tenant or principal.tenant),
            key_id=principal.key_id,
            client=request.client.host if request.client else None,
            details=details,
        )

    async def record_local(self, action: Action, target: str, **details: Detail) -> None:
        """Record what a script of the operator's is about to do, in the default tenant's log.

        Raises:
            StoreUnavailable: it may not have been written.
        """
        await self._write(
            action,
            target,
            tenants=(DEFAULT_TENANT, DEFAULT_TENANT),
            key_id=BESIDE_THE_STORE,
            client=None,
            details=details,
        )

    async def read(
        self, tenant: str, *, after: Place | None, limit: int
    ) -> tuple[list[Record], Place | None]:
        """Return a tenant's records, newest first, and the place to go on after; None at the end.

        Args:
            tenant: whose log.
            after: a place; None begins with the newest.
            limit: at most how many.
        """
        newest, after_id = after or ("+inf", "")
        rows, more = await self._run("list_audit", tenant, newest, after_id, limit, self._life)
        found = [_decode(int(at), record) for at, record in rows]
        return found, (found[-1].at, found[-1].id) if more and found else None

    async def _write(
        self,
        action: Action,
        target: str,
        *,
        tenants: tuple[str, str],
        key_id: str,
        client: str | None,
        details: Mapping[str, Detail],
    ) -> None:
        key_tenant, tenant = tenants
        record_id = ids.new_id("aud", 0, self._clock.now())
        members = {
            "action": action,
            "target": _short(target),
            "tenant": tenant,
            "keyId": key_id,
            "keyTenant": key_tenant,
            "client": client,
            "requestId": current_request_id(),
            "details": _bounded(details),
        }
        text = compact(members)
        logs = sorted({*tenants})
        await self._run("put_audit", record_id, text, self._most, self._life, *logs)
        log.info("audit.%s", action, extra={"audit": record_id, **members})

    async def _run(self, name: str, *args: Argument) -> Any:
        return await self._store.run(Call(load_script("gateway", name), META_PREFIX, args))


def _bounded(details: Mapping[str, Detail]) -> dict[str, Any]:
    given = list(details.items())[:_MAX_DETAILS]
    return {name: _plain(value) for name, value in given}


def _plain(value: Detail) -> Any:
    match value:
        case str():
            return _short(value)
        case bool() | int() | float() | None:
            return value
        case _:
            return [_short(each) for each in value[:_MAX_MEMBERS]]


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _decode(at: int, kept: bytes) -> Record:
    record_id, _, text = kept.decode().partition(" ")
    members = json.loads(text)
    return Record(
        id=record_id,
        at=at,
        action=members["action"],
        target=members["target"],
        tenant=members["tenant"],
        key_id=members["keyId"],
        key_tenant=members["keyTenant"],
        client=members["client"],
        request_id=members["requestId"],
        details=members["details"],
    )
