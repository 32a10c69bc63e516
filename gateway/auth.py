"""Who is asking: API keys, what they may do, and the tenant they speak for.

A key is shown once, at its making; the store keeps its SHA-256 only. Keys carry 190 random bits, so
a plain hash is enough: there is nothing to guess. Their last eight characters are a CRC-32 of the
rest: a mistyped or made-up key is refused without asking the store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

from config import ids
from config.clock import Clock
from gateway.errors import GatewayError
from gateway.problems import Problem

Scope = Literal["submit", "read", "operate", "admin"]

SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
"""Everything a key may be allowed; no scope includes another."""

KEY_PREFIX = "gwk_"
"""What every key the gateway makes begins with, so that scanners recognise a leaked one."""

DEFAULT_TENANT = "default"
"""The tenant of the bootstrap key."""

TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
"""What names a tenant. No colon: it is a part of keys in the store."""

_TOKEN = re.compile(r"[\x21-\x7e]{8,255}", re.ASCII)
_MADE = re.compile(rf"({KEY_PREFIX}[0-9A-Za-z]{{32}})([0-9a-f]{{8}})", re.ASCII)
_BEARER = re.compile(r"bearer +([\x21-\x7e]{8,255}) *", re.ASCII | re.IGNORECASE)
_CACHE_SECONDS = 1.0
_CACHE_SIZE = 1024


class ApiKeyError(GatewayError):
    """A text that cannot be an API key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key as the store has it.

    Attributes:
        id: names the key in logs and administration.
        digest: SHA-256 of the key, lower-case hexadecimal.
        tenant: whose objects it reaches.
        scopes: what it may do.
        created_at: µs since the epoch.
        name: what people call it; may be empty.
        expires_at: from when on it is refused, µs; None for never.
    """

    id: str
    digest: str
    tenant: str
    scopes: frozenset[Scope]
    created_at: int
    name: str = ""
    expires_at: int | None = None

    def encode(self) -> dict[str, str]:
        """Return the hash fields the store keeps."""
        fields = {
            "id": self.id,
            "digest": self.digest,
            "tenant": self.tenant,
            "scopes": ",".join(sorted(self.scopes)),
            "createdAt": str(self.created_at),
            "name": self.name,
            "expiresAt": "" if self.expires_at is None else str(self.expires_at),
        }
        return {name: value for name, value in fields.items() if value or name == "scopes"}

    @classmethod
    def decode(cls, kept: Mapping[bytes, bytes]) -> Self:
        """Return what `encode` kept; scopes this release does not know are left out."""
        scopes = kept[b"scopes"].decode().split(",")
        return cls(
            id=kept[b"id"].decode(),
            digest=kept[b"digest"].decode(),
            tenant=kept[b"tenant"].decode(),
            scopes=frozenset(scope for scope in SCOPES if scope in scopes),
            created_at=int(kept[b"createdAt"]),
            name=kept.get(b"name", b"").decode(),
            expires_at=int(kept[b"expiresAt"]) if b"expiresAt" in kept else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whoever sent a request, as far as it matters.

    Attributes:
        tenant: whose objects they reach.
        scopes: what they may do.
        key_id: names their API key in logs and administration.
        digest: what the store knows that key by.
    """

    tenant: str
    scopes: frozenset[Scope]
    key_id: str
    digest: str = field(default="", repr=False, compare=False)

    def require(self, scope: Scope) -> None:
        """Pass when the key has `scope`.

        Raises:
            Problem: `insufficient_scope`.
        """
        if scope not in self.scopes:
            raise Problem("insufficient_scope", f"this needs an API key with the scope {scope}")


def digest_of(token: str) -> str:
    """Return what the store knows `token` by."""
    return hashlib.sha256(token.encode()).hexdigest()


def make_key(
    tenant: str,
    scopes: Iterable[Scope],
    now: int,
    *,
    name: str = "",
    expires_at: int | None = None,
) -> tuple[str, ApiKey]:
    """Return a fresh key, to be shown once, and the record of it (instants in µs)."""
    stem = KEY_PREFIX + ids.random_text(32)
    token = stem + _checksum(stem)
    record = _record(token, tenant, scopes, now)
    return token, replace(record, name=name, expires_at=expires_at)


def is_made_here(token: str) -> bool:
    """Tell whether `token` can be a key that a gateway made: its checksum is right."""
    found = _MADE.fullmatch(token)
    return found is not None and hmac.compare_digest(found[2], _checksum(found[1]))


def bootstrap_key(token: str) -> ApiKey:
    """Return the record of the key that the settings name: every scope, the default tenant.

    Raises:
        ApiKeyError: it is not 8 to 255 visible ASCII characters.
    """
    if _TOKEN.fullmatch(token) is None:
        raise ApiKeyError("bootstrap_api_key: must be 8 to 255 visible ASCII characters")
    return _record(token, DEFAULT_TENANT, SCOPES, 0)


def bearer(header: str | None) -> str:
    """Return the token of an `Authorization` header (RFC 6750 section 2.1).

    Raises:
        Problem: `unauthorized`, when there is none or it cannot be one.
    """
    if header is None:
        raise Problem("unauthorized", "this needs an Authorization header with a bearer API key")
    found = _BEARER.fullmatch(header)
    if found is None:
        raise Problem("unauthorized", "the Authorization header is not Bearer and an API key")
    return found[1]


class Authenticator:
    """Finds the principal of a token, asking the store at most once a second per key.

    A revoked key is therefore refused everywhere within a second. Only keys that exist are
    remembered: guesses cannot push them out.
    """

    def __init__(
        self,
        find: Callable[[str], Awaitable[ApiKey | None]],
        clock: Clock,
        bootstrap: ApiKey | None = None,
    ) -> None:
        self._find = find
        self._clock = clock
        self._bootstrap = bootstrap
        self._cache: OrderedDict[str, tuple[float, ApiKey]] = OrderedDict()

    async def authenticate(self, header: str | None) -> Principal:
        """Return who sent the `Authorization` header.

        Raises:
            Problem: `unauthorized`.
            StoreUnavailable: nobody could be asked.
        """
        token = bearer(header)
        digest = digest_of(token)
        key = await self._lookup(digest) if self._can_be(token, digest) else None
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise Problem("unauthorized", "the API key is not known or was revoked")
        if self._has_expired(key):
            raise Problem("unauthorized", "the API key has expired")
        return Principal(tenant=key.tenant, scopes=key.scopes, key_id=key.id, digest=digest)

    async def still_has(self, digest: str, scope: Scope) -> bool:
        """Tell whether a key that was let in has `scope` still: for what outlasts a request.

        Raises:
            StoreUnavailable: nobody could be asked.
        """
        key = await self._lookup(digest)
        return key is not None and not self._has_expired(key) and scope in key.scopes

    def _can_be(self, token: str, digest: str) -> bool:
        return self._is_bootstrap(digest) or is_made_here(token)

    def _is_bootstrap(self, digest: str) -> bool:
        kept = self._bootstrap
        return kept is not None and hmac.compare_digest(kept.digest, digest)

    def _has_expired(self, key: ApiKey) -> bool:
        return key.expires_at is not None and self._clock.now() >= key.expires_at

    async def _lookup(self, digest: str) -> ApiKey | None:
        if self._is_bootstrap(digest):
            return self._bootstrap
        now = self._clock.monotonic()
        kept = self._cache.get(digest)
        if kept is not None and now - kept[0] < _CACHE_SECONDS:
            return kept[1]
        self._cache.pop(digest, None)
        key = await self._find(digest)
        if key is not None:
            self._remember(digest, now, key)
        return key

    def _remember(self, digest: str, now: float, key: ApiKey) -> None:
        self._cache[digest] = (now, key)
        self._cache.move_to_end(digest)
        if len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)


def _checksum(stem: str) -> str:
    return f"{zlib.crc32(stem.encode()):08x}"


def _record(token: str, tenant: str, scopes: Iterable[Scope], now: int) -> ApiKey:
    digest = digest_of(token)
    return ApiKey(
        id=ids.derived_id("key", 0, digest),
        digest=digest,
        tenant=tenant,
        scopes=frozenset(scopes),
        created_at=now,
    )
