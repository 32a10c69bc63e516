"""API keys and tenants as operators have to do with them: made, listed, revoked.

They belong to no partition. Every method may be called again after `StoreUnavailable` with the same
arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.scripts import META_PREFIX, Argument, Call, load_script, pairs
from config.store import Store
from gateway.auth import ApiKey

Place = tuple[int, str]
"""Where something stands in its list: when it was made, µs, and its identifier."""

START: Place = (0, "")
"""Before everything in a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Somebody whose objects nobody else sees.

    Attributes:
        id: what keys and objects name it by.
        name: what people call it; may be empty.
        created_at: µs since the epoch.
    """

    id: str
    name: str
    created_at: int


class KeyStore:
    """The API keys and the tenants in the durable store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, key: ApiKey) -> None:
        """Keep an API key, and make its tenant if that is new.

        Raises:
            StoreFull: nothing was written.
        """
        fields = [part for field in key.encode().items() for part in field]
        await self._run("put_key", key.id, key.digest, key.tenant, key.created_at, *fields)

    async def find(self, digest: str) -> ApiKey | None:
        """Return the API key with this digest, or None."""
        return _key(await self._run("find_key", digest))

    async def read(self, key_id: str) -> ApiKey | None:
        """Return the API key with this identifier, or None."""
        return _key(await self._run("read_key", key_id))

    async def list_keys(
        self, tenant: str | None, *, after: Place, limit: int
    ) -> tuple[list[ApiKey], Place | None]:
        """Return API keys after a place, oldest first, and the place to go on after.

        Args:
            tenant: whose; None for everybody's.
            after: a place; `START` for the oldest.
            limit: at most how many.
        """
        rows, more = await self._run("list_keys", tenant or "", *after, limit)
        found = [key for row in rows if (key := _key(row)) is not None]
        return found, (found[-1].created_at, found[-1].id) if more and found else None

    async def revoke(self, key_id: str) -> bool:
        """Forget an API key; tell whether it was there. Processes notice within a second."""
        return bool(await self._run("revoke_key", key_id))

    async def put_tenant(self, tenant: str, name: str) -> tuple[Tenant, bool]:
        """Make a tenant unless it exists; return it, and whether it was made now.

        Raises:
            StoreFull: nothing was written.
        """
        made, fields = await self._run("put_tenant", tenant, name)
        return _tenant(tenant, pairs(fields)), bool(made)

    async def list_tenants(self, *, after: Place, limit: int) -> tuple[list[Tenant], Place | None]:
        """Return tenants after a place, oldest first, and the place to go on after."""
        rows, more = await self._run("list_tenants", *after, limit)
        found = [_tenant(name.decode(), pairs(fields)) for name, fields in rows]
        return found, (found[-1].created_at, found[-1].id) if more and found else None

    async def _run(self, name: str, *args: Argument) -> Any:
        return await self._store.run(Call(load_script("gateway", name), META_PREFIX, args))


def _key(flat: list[bytes]) -> ApiKey | None:
    kept = dict(zip(flat[::2], flat[1::2], strict=True))
    return ApiKey.decode(kept) if kept else None


def _tenant(identifier: str, kept: Mapping[str, bytes]) -> Tenant:
    return Tenant(id=identifier, name=kept["name"].decode(), created_at=int(kept["createdAt"]))
