"""What the gateway says about itself: job types, problem pages, whether it lives and is ready."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from config.health import Health
from gateway.access import Access
from gateway.jobtypes import JobType
from gateway.problempages import page_of
from gateway.problems import Problem
from gateway.resource import json_response, resource
from gateway.services import Services

_PAGE_HEADERS = {
    "Cache-Control": "public, max-age=3600",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class SystemApi:
    """The addresses that belong to no object."""

    def __init__(self, services: Services, access: Access, health: Health) -> None:
        self._services = services
        self._access = access
        self._health = health

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/v1/job-types", GET=self.job_types),
            resource("/problems/{code}", GET=self.problem),
            resource("/livez", GET=self.alive),
            resource("/readyz", GET=self.ready),
        ]

    async def job_types(self, request: Request) -> Response:
        """`GET /v1/job-types`: what can be submitted, to anyone with a key."""
        await self._access.principal(request)
        kinds = [_describe(kind) for kind in self._services.registry.types()]
        return json_response({"items": kinds}, 200, {"Cache-Control": "private, no-cache"})

    async def problem(self, request: Request) -> Response:
        """`GET /problems/{code}`: the page that a problem's `type` names."""
        page = page_of(request.path_params["code"])
        if page is None:
            raise Problem("not_found", "no problem has this code")
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def alive(self, _request: Request) -> Response:
        """`GET /livez`: 200 while the process does its work."""
        if self._health.stalled():
            raise _unhealthy()
        return PlainTextResponse("alive\n", headers={"Cache-Control": "no-store"})

    async def ready(self, _request: Request) -> Response:
        """`GET /readyz`: 200 while the durable store takes writes and the process stays.

        Why not is for operators: their port says it.
        """
        if await self._health.reasons():
            raise _unhealthy()
        return PlainTextResponse("ready\n", headers={"Cache-Control": "no-store"})


def _unhealthy() -> Problem:
    return Problem("unhealthy", "this process takes no part at present", retry_after=1)


def _describe(kind: JobType) -> dict[str, Any]:
    return {
        "type": kind.name,
        "summary": kind.summary,
        "input": kind.input_schema(),
        "result": kind.result_schema(),
        "example": dict(kind.example),
        "limits": {
            "timeoutSeconds": kind.timeout,
            "queueTimeoutSeconds": kind.queue_timeout,
            "maxAttempts": kind.max_attempts,
            "isolation": kind.isolation,
            "memoryBytes": kind.memory_bytes,
        },
    }
