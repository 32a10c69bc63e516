"""API keys and tenants."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.auth import Scope
from gateway.openapi.models.base import Answered, Instant, Url


class KeyLinks(Answered):
    """Where a key is found."""

    self: Url


class KeyDocument(Answered):
    """An API key, all but the key itself."""

    id: str
    name: str | None
    tenant: str
    scopes: tuple[Scope, ...]
    created_at: Instant
    expires_at: Instant | None
    links: Annotated[KeyLinks, Field(alias="_links")]


class NewKey(KeyDocument):
    """An API key, with the key itself."""

    key: Annotated[str, Field(description="Shown this once; the gateway keeps a hash only.")]


class KeyList(Answered):
    """One page of API keys, oldest first."""

    items: tuple[KeyDocument, ...]
    next_cursor: str | None


class TenantLinks(Answered):
    """Where to go on from a tenant."""

    keys: Url


class TenantDocument(Answered):
    """A tenant: whose jobs, keys and endpoints are apart from everybody else's."""

    id: str
    name: str | None
    created_at: Instant
    links: Annotated[TenantLinks, Field(alias="_links")]


class TenantList(Answered):
    """One page of tenants, oldest first."""

    items: tuple[TenantDocument, ...]
    next_cursor: str | None
