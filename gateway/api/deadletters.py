"""Dead letters over HTTP: what could not be delivered and which jobs failed, and why."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.clock import rfc3339
from delivery.errors import SealError
from delivery.letters import AGE_BANDS, most
from delivery.models import DeadDelivery
from gateway.access import Access
from gateway.api.deliveries import attempt_document
from gateway.auth import Principal
from gateway.deadletters import Counted, DeadLetters, Query, Row, job_of, parse_query
from gateway.documents import shown_url
from gateway.listing import make_cursor
from gateway.resource import json_response, resource
from gateway.services import Services
from gateway.urls import Urls

_PATH = "/v1/dead-letters"
_NO_STORE = {"Cache-Control": "no-store"}

NAMED = 100
"""How many endpoints, types and reasons a count names; the most frequent ones."""


class DeadLettersApi:
    """The addresses under `/v1/dead-letters`."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._letters = DeadLetters(services)
        self._ring = services.ring
        self._access = access
        self._urls = urls

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource(_PATH, GET=self.list),
            resource(f"{_PATH}/stats", GET=self.stats),
        ]

    async def list(self, request: Request) -> Response:
        """`GET /v1/dead-letters`: one page, oldest first, and where the next one is."""
        principal, query = await self._asked(request, paged=True)
        found, place = await self._letters.page(query, query.tenant or principal.tenant)
        cursor = make_cursor(place) if place else None
        headers = dict(_NO_STORE)
        if cursor:
            headers["Link"] = f'<{self._next(request, cursor)}>; rel="next"'
        items = [self._document(row, principal) for row in found]
        return json_response({"items": items, "nextCursor": cursor}, 200, headers)

    async def stats(self, request: Request) -> Response:
        """`GET /v1/dead-letters/stats`: how many there are, by what they have in common."""
        principal, query = await self._asked(request, paged=False)
        counted = await self._letters.count(query, query.tenant or principal.tenant)
        return json_response(stats_document(query.kind, counted), 200, _NO_STORE)

    async def _asked(self, request: Request, *, paged: bool) -> tuple[Principal, Query]:
        principal = await self._access.principal(request, "read")
        query = parse_query(request.query_params.multi_items(), paged=paged)
        if query.tenant is not None:
            principal.require("admin")
        return principal, query

    def _next(self, request: Request, cursor: str) -> str:
        kept = [each for each in request.query_params.multi_items() if each[0] != "cursor"]
        return f"{self._urls.instance(_PATH)}?{urlencode([*kept, ('cursor', cursor)])}"

    def _document(self, row: Row, principal: Principal) -> dict[str, Any]:
        letter, urls = row.letter, self._urls
        job_id, job_type = job_of(letter)
        common = {
            "kind": "job",
            "id": letter.id,
            "tenant": letter.tenant,
            "reason": letter.reason,
            "diedAt": rfc3339(letter.died_at),
            "createdAt": rfc3339(row.created_at),
            "jobId": job_id,
            "jobType": job_type,
            "event": None,
            "endpointId": letter.endpoint or None,
            "origin": letter.origin or None,
            "url": None,
            "attemptCount": 0,
            "lastStatusCode": None,
            "lastAttempt": None,
            "error": None,
            "_links": {
                "self": urls.job(letter.id),
                "endpoint": urls.endpoint(letter.endpoint) if letter.endpoint else None,
                "job": urls.job(job_id) if job_id else None,
            },
        }
        if not isinstance(row, DeadDelivery):
            return {**common, "attemptCount": row.attempt, "error": row.error}
        event, last = letter.tags.get("event"), row.last
        with_answer = "operate" in principal.scopes
        return {
            **common,
            "kind": "delivery",
            "event": event if isinstance(event, str) else None,
            "url": self._url(row),
            "attemptCount": row.attempts,
            "lastStatusCode": row.last_status,
            "lastAttempt": attempt_document(last, with_answer=with_answer) if last else None,
            "_links": {
                **common["_links"],  # type: ignore[dict-item]
                "self": urls.instance(f"/v1/deliveries/{letter.id}"),
            },
        }

    def _url(self, row: DeadDelivery) -> str | None:
        """Return where it was to go; None when that cannot be read, which may be why it is dead."""
        try:
            return shown_url(self._ring.open(row.url, row=row.letter.id).decode())
        except SealError:
            return None


def stats_document(kind: str, counted: Counted) -> dict[str, Any]:
    """Return how many dead letters there are, by what they have in common."""
    tally = counted.tally
    return {
        "kind": kind,
        "total": tally.total,
        "cut": counted.cut,
        "reasons": [
            {"reason": reason, "count": count} for reason, count in most(tally.reasons, NAMED)
        ],
        "endpoints": [
            {"endpointId": endpoint or None, "origin": origin or None, "count": count}
            for (endpoint, origin), count in most(tally.endpoints, NAMED)
        ],
        "types": [
            {"type": kind or None, "count": count} for kind, count in most(tally.tags, NAMED)
        ],
        "ages": [{"age": band, "count": tally.ages[band]} for band in AGE_BANDS],
    }
