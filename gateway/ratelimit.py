"""How often a key may poll a job and submit jobs.

Counted in the soft store, so that a poll never waits for a disk. When that store is away, nobody is
refused: it is asked again a few seconds later.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from math import ceil
from typing import Literal

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.clock import SECOND, Clock
from config.errors import StoreError
from config.scripts import Call, load_script
from config.sections import ApiSettings
from config.settings import Settings
from config.store import Store, connect
from gateway.access import Access
from gateway.middleware import Refuse
from gateway.problems import Problem

_log = logging.getLogger("gateway.ratelimit")

WINDOW_SECONDS = 60
_APART = SECOND - SECOND // 10
"""µs between two polls that count as a second: what a client sends a second apart may arrive a
little less so."""

_TIMEOUT_SECONDS = 0.25
_AWAY_SECONDS = 5.0
_CONNECTIONS = 16
_STATUS_PATH = re.compile(r"/v1/jobs/([^/]+)")
_TOLD = frozenset({200, 202, 304, 429})
"""Statuses that the fields go with: not with a redirect, which says that polling is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many requests a minute, all of them at once if need be.

    Attributes:
        name: what the fields call it.
        quota: requests a minute.
        apart: µs since the request before after which one is never refused; 0 for no such promise.
    """

    name: Literal["poll", "submit"]
    quota: int
    apart: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where somebody stands with a limit after a request.

    Attributes:
        allowed: whether the request may go on.
        wait: µs until the next one may, if it may not.
        left: how many may follow at once.
        reset: µs until nothing is used up.
    """

    limit: Limit
    allowed: bool
    wait: int
    left: int
    reset: int

    @property
    def fields(self) -> dict[str, str]:
        """Return the header fields (draft-ietf-httpapi-ratelimit-headers)."""
        limit = self.limit
        return {
            "RateLimit-Policy": f'"{limit.name}";q={limit.quota};w={WINDOW_SECONDS}',
            "RateLimit": f'"{limit.name}";r={max(0, self.left)};t={ceil(self.reset / SECOND)}',
        }


class RateLimiter:
    """Counts requests in the soft store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Count in `store`, which stays the caller's to close; `clock` says when to ask again."""
        self._store = store
        self._clock = clock
        self._away_until = 0.0

    async def count(self, limit: Limit, *who: str) -> Standing | None:
        """Count a request of `who`; None when it cannot be counted, and goes on."""
        if self._clock.monotonic() < self._away_until:
            return None
        name = hashlib.sha256("\0".join(who).encode()).hexdigest()[:32]
        interval = WINDOW_SECONDS * SECOND // limit.quota
        call = Call(
            load_script("gateway", "rate_limit"),
            f"gw:rate:{limit.name}:{name}",
            (limit.quota, interval, limit.apart),
        )
        try:
            allowed, wait, left, reset = await self._store.run(call)
        except StoreError as error:
            self._away_until = self._clock.monotonic() + _AWAY_SECONDS
            _log.warning("ratelimit.unavailable", extra={"error": str(error)})
            return None
        return Standing(limit=limit, allowed=bool(allowed), wait=wait, left=left, reset=reset)


def connect_soft(settings: Settings) -> Store:
    """Return the soft store, whose silence delays a request by half a second at the most."""
    return connect(
        settings.broker.url, max_connections=_CONNECTIONS, socket_timeout=_TIMEOUT_SECONDS
    )


class RateLimits:
    """Middleware: refuses polls and submissions beyond their limits, and tells what is left.

    Only those with credentials count: the others are refused anyway, by whoever answers them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ApiSettings,
        access: Access,
        limiter: RateLimiter,
        submissions: Collection[str],
        refuse: Refuse,
    ) -> None:
        """Stand before `app`.

        Args:
            app: answers what is not refused.
            settings: how much is allowed.
            access: knows who asks.
            limiter: counts.
            submissions: the paths a POST to which submits a job.
            refuse: writes the answer to a problem.
        """
        self._app = app
        self._refuse = refuse
        self._access = access
        self._limiter = limiter
        self._submissions = frozenset(submissions)
        self._poll = Limit(name="poll", quota=settings.polls_per_minute, apart=_APART)
        self._submit = Limit(name="submit", quota=settings.submits_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        standing = await self._standing(scope) if scope["type"] == "http" else None
        if standing is None:
            await self._app(scope, receive, send)
            return
        fields = standing.fields
        if not standing.allowed:
            problem = Problem(
                "rate_limited",
                f"more than {standing.limit.quota} a minute",
                headers=fields,
                retry_after=max(1, ceil(standing.wait / SECOND)),
            )
            await self._refuse(scope, problem)(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _TOLD:
                MutableHeaders(scope=message).update(fields)
            await send(message)

        await self._app(scope, receive, tell)

    async def _standing(self, scope: Scope) -> Standing | None:
        method, path = scope["method"], scope["path"]
        request = Request(scope)
        try:
            if method == "POST" and path in self._submissions:
                principal = await self._access.principal(request, "submit")
                return await self._limiter.count(self._submit, principal.key_id)
            found = _STATUS_PATH.fullmatch(path) if method in {"GET", "HEAD"} else None
            if found is not None:
                reader = await self._access.reader(request, found[1])
                who = reader.ticket or request.headers.get("authorization", "")
                return await self._limiter.count(self._poll, who, found[1])
        except (Problem, StoreError):
            # Whoever answers the request finds and says the same.
            return None
        return None
