"""Replays over HTTP: dead letters sent again, run again or purged together.

Whoever makes, cancels or resumes one is in the audit log.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config import ids
from delivery.configure import policy_of
from delivery.egress import Destination
from delivery.endpoints import register
from delivery.errors import TooManyEndpoints
from delivery.replays import Replay, total
from gateway.access import Access
from gateway.api.deliveries import HINTS
from gateway.auth import Principal
from gateway.bodies import read_json
from gateway.deadletters import DeadLetters
from gateway.drafts import too_many_endpoints
from gateway.listing import parse_limit
from gateway.ownership import unverified_rate
from gateway.problems import Problem
from gateway.replays import document, wish_of
from gateway.resource import json_response, resource
from gateway.schemas.replays import parse_replay
from gateway.services import Services
from gateway.urls import Urls

_PATH = "/v1/replays"
_NO_STORE = {"Cache-Control": "no-store"}
_RETRY_SECONDS = 60


class ReplaysApi:
    """The addresses under `/v1/replays`."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._services = services
        self._replays = services.replays
        self._letters = DeadLetters(services)
        self._access = access
        self._urls = urls
        self._policy = policy_of(services.settings)

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource(_PATH, GET=self.list, POST=self.create),
            resource(f"{_PATH}/{{replay_id}}", GET=self.show),
            resource(f"{_PATH}/{{replay_id}}/cancel", POST=self.cancel),
            resource(f"{_PATH}/{{replay_id}}/resume", POST=self.resume),
        ]

    async def create(self, request: Request) -> Response:
        """`POST /v1/replays`: 202; what it is about is settled, and it begins."""
        principal = await self._access.principal(request, "operate")
        services, limits = self._services, self._services.settings.api
        value = await read_json(request, limits)
        wanted = parse_replay(value)
        partitions = services.settings.store.partitions
        wish = wish_of(wanted, principal, policy=self._policy, partitions=partitions)
        if wish.to_url is not None:
            await self._prepare(principal.tenant, wish.to_url)
        total_ = len(wish.named) or await self._letters.total(wanted.kind, principal.tenant)
        replay_id = ids.new_id("rpl", ids.random_partition(partitions), services.clock.now())
        await services.audit.record(
            request,
            principal,
            "dead_letters.purge" if wanted.action == "purge" else "replay.create",
            replay_id,
            kind=wanted.kind,
            scope="ids" if wish.named else "filter" if wanted.filter else "all",
            letters=total_,
            dryRun=wanted.dry_run,
            elsewhere=wish.to_url.origin if wish.to_url else None,
        )
        to_url = wish.to_url.url.encode() if wish.to_url else b""
        made = await self._replays.create(
            replay_id,
            principal.tenant,
            wanted.kind,
            replace(wish.definition, total=total_),
            to_url=services.ring.seal(to_url, row=replay_id) if to_url else b"",
            named=wish.named,
        )
        if made is None:
            detail = "as many replays run as are kept"
            raise Problem("too_many_replays", detail, retry_after=_RETRY_SECONDS)
        shown = await self._document(made)
        return json_response(shown, 202, {**_NO_STORE, "Location": shown["_links"]["self"]})

    async def _prepare(self, tenant: str, destination: Destination) -> None:
        """Register the endpoint that deliveries are to go to instead.

        Raises:
            Problem: `too_many_endpoints`, `endpoint_unverified`.
        """
        services = self._services
        registration = register(
            tenant,
            destination,
            services.ring,
            services.settings.store.partitions,
            unverified_rate=unverified_rate(services.settings.delivery, tenant),
        )
        try:
            endpoint, created = await services.deliveries.register_endpoint(registration)
        except TooManyEndpoints as error:
            raise too_many_endpoints() from error
        if created and services.ownership.mode(tenant) != "off":
            await services.ownership.ask(endpoint, destination)
        await services.ownership.require(tenant, endpoint.id, "/toUrl")

    async def list(self, request: Request) -> Response:
        """`GET /v1/replays`: the tenant's replays, newest first."""
        principal = await self._access.principal(request, "read")
        given = request.query_params.multi_items()
        if len(given) > 1 or not {name for name, _ in given} <= {"limit"}:
            raise Problem("invalid_parameter", "the known parameter, once, is limit")
        limit = parse_limit(dict(given).get("limit"))
        found = await self._replays.list_replays(principal.tenant, limit)
        items = await asyncio.gather(*(self._document(each) for each in found))
        return json_response({"items": items}, 200, _NO_STORE)

    async def show(self, request: Request) -> Response:
        """`GET /v1/replays/{id}`: how far it has come, and what came of it."""
        principal = await self._access.principal(request, "read")
        shown = await self._document(await self._find(request, principal))
        return json_response(shown, 200, _NO_STORE)

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/replays/{id}/cancel`: 200; it moves no more. What it moved goes on."""
        principal = await self._access.principal(request, "operate")
        replay = await self._find(request, principal)
        await self._services.audit.record(request, principal, "replay.cancel", replay.id)
        state = await self._replays.cancel(replay.id)
        if state != "cancelled":
            raise Problem("replay_not_running", f"the replay is {state or 'gone'}")
        shown = await self._document(await self._find(request, principal))
        return json_response(shown, 200, _NO_STORE)

    async def resume(self, request: Request) -> Response:
        """`POST /v1/replays/{id}/resume`: 202; it goes on from where it was."""
        principal = await self._access.principal(request, "operate")
        replay = await self._find(request, principal)
        await self._services.audit.record(request, principal, "replay.resume", replay.id)
        if not await self._replays.resume(replay.id, ids.random_text(16)):
            raise Problem("replay_completed", "the replay is completed")
        shown = await self._document(await self._find(request, principal))
        return json_response(shown, 202, {**_NO_STORE, "Location": shown["_links"]["self"]})

    async def _find(self, request: Request, principal: Principal) -> Replay:
        replay_id = request.path_params["replay_id"]
        replay = None
        if ids.is_id("rpl", replay_id) and ids.partition_of(replay_id) < self._replays.partitions:
            replay = await self._replays.read(replay_id)
        if replay is None or replay.tenant != principal.tenant:
            raise Problem("not_found", "no replay of this identifier is known")
        return replay

    async def _document(self, replay: Replay) -> dict[str, Any]:
        parts = await self._replays.progress(replay.id)
        return document(
            replay,
            total(parts.values()),
            urls=self._urls,
            ring=self._services.ring,
            hints=HINTS,
        )
