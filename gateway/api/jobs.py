"""Jobs over HTTP: submit one, ask how it stands, fetch its result."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.ids import random_float
from gateway.access import Access, Reader
from gateway.admission import Admission
from gateway.answers import Answers
from gateway.api.control import JobControl
from gateway.api.intake import Intake, reading
from gateway.api.lists import JobLists
from gateway.api.sights import JobWatchers, hold
from gateway.auth import Principal
from gateway.bodies import body_kind, boundary_of, limited, parse_json, read_json
from gateway.documents import retry_after, version
from gateway.models import View
from gateway.multipart import Multipart
from gateway.preferences import parse_preferences
from gateway.problems import Problem
from gateway.reading import read_job
from gateway.resource import json_response, matches, resource
from gateway.schemas.jobs import SubmitRequest, parse_submit
from gateway.services import Services
from gateway.submit import Submitted
from gateway.uploads import read_request, store_files
from gateway.urls import Urls

CACHE = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Prefer, Origin"}
"""Headers of everything that one reader may keep and must revalidate."""


_FOLLOWED_UNREAD_BYTES = 8_192
"""Node's `fetch` follows a redirect without reading its body: a longer one would hold on to the
connection, and keep the client's program running, until the server closes it."""


class JobsApi:
    """The addresses under `/v1/jobs`, artifacts aside."""

    def __init__(
        self,
        services: Services,
        access: Access,
        urls: Urls,
        admission: Admission,
        watchers: JobWatchers,
        intake: Intake,
    ) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._watchers = watchers
        self._answers = Answers(services=services, urls=urls)
        self._control = JobControl(services, access, urls, admission)
        self._lists = JobLists(services, access, urls)
        self._settings = services.settings.api
        self._intake = intake

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/v1/jobs", GET=self._lists.list, POST=self.submit),
            resource("/v1/jobs/{job_id}", GET=self.status, DELETE=self._control.erase),
            resource("/v1/jobs/{job_id}/cancel", POST=self._control.cancel),
            resource("/v1/jobs/{job_id}/retry", POST=self._control.retry),
            resource("/v1/jobs/{job_id}/result", GET=self.result),
        ]

    async def submit(self, request: Request) -> Response:
        """`POST /v1/jobs`: 202 once the job is kept, or 200 if it ends while the client waits."""
        if body_kind(request.headers) == "json":
            return await self._intake.take(request, partial(self._submit_json, request))
        return await self._intake.take(request, partial(self._submit_multipart, request))

    async def _submit_json(
        self, request: Request, principal: Principal, key: str | None
    ) -> Submitted:
        limits = self._settings
        value = await read_json(request, limits)
        draft = await self._intake.draft(request, principal, self._parse(value))
        return await self._intake.submit(request, draft, {}, key)

    async def _submit_multipart(
        self, request: Request, principal: Principal, key: str | None
    ) -> Submitted:
        limits = self._settings
        with self._intake.space(principal.tenant, limits.upload_limit_bytes) as allowed:
            body = limited(request, allowed + limits.body_limit_bytes)
            form = Multipart(body, boundary_of(request.headers))
            data = await read_request(form, limit=limits.body_limit_bytes)
            value = parse_json(data, depth=limits.json_depth)
            draft = await self._intake.draft(request, principal, self._parse(value))
            files = await store_files(
                form,
                draft.parts,
                artifacts=self._services.artifacts,
                job_id=draft.job_id,
                limit=allowed,
            )
        return await self._intake.submit(request, draft, files, key)

    def _parse(self, value: Any) -> SubmitRequest:
        return parse_submit(value, metadata_limit=self._settings.metadata_limit_bytes)

    async def status(self, request: Request) -> Response:
        """`GET /v1/jobs/{jobId}`: how the job stands; a completed one leads on to its result."""
        inline = _wants_inline(request)
        view, reader = await self._read(request)
        view, applied = await self._after_change(request, view)
        if applied and not await self._access.still_reads(reader):
            raise Problem("unauthorized", "the API key was revoked while the answer was held back")
        answer = await self._status(request, view, reader, inline=inline)
        answer.headers.update(applied)
        return answer

    async def _after_change(self, request: Request, view: View) -> tuple[View, dict[str, str]]:
        """Wait as the request prefers; return the job then, and the header that says so."""
        preferences = parse_preferences(request.headers.getlist("prefer"))
        if preferences.wait is None or request.method == "HEAD":
            return view, {}
        known = request.headers.get("if-none-match")
        held = await hold(
            self._watchers,
            request,
            view,
            seconds=preferences.wait,
            holds=lambda seen: (
                seen.job.is_terminal or not (known is None or matches(known, _etag(seen)))
            ),
        )
        if held is None:
            held, _ = await self._read(request)
        return held, preferences.applied

    async def _status(
        self, request: Request, view: View, reader: Reader, *, inline: bool | None
    ) -> Response:
        if view.job.status == "completed" and not (
            inline if inline is not None else view.job.on_complete == "inline"
        ):
            return await self._see_result(request, view, reader)
        etag = _etag(view)
        headers = {**CACHE, "ETag": etag}
        if not view.job.is_terminal:
            headers["Retry-After"] = str(retry_after(view, random_float()))
        if matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        answer = json_response(await self._answers.document(view), 200, headers)
        answer.background = reading(self._services.jobs, request, view)
        return answer

    async def _see_result(self, request: Request, view: View, reader: Reader) -> Response:
        job_id = view.job.id
        ticket = self._access.pass_on(reader, job_id, self._settings.redirect_ticket_seconds)
        headers = {"Location": self._urls.result(job_id, ticket), "Cache-Control": "no-store"}
        answer = json_response(await self._answers.document(view), 303, headers)
        answer.background = reading(self._services.jobs, request, view)
        if len(answer.body) > _FOLLOWED_UNREAD_BYTES:
            answer.headers["Connection"] = "close"
        return answer

    async def result(self, request: Request) -> Response:
        """`GET /v1/jobs/{jobId}/result`: the job document of a completed job."""
        view, _ = await self._read(request)
        match view.job.status:
            case "completed":
                answer = json_response(await self._answers.document(view), 200, CACHE)
                answer.background = reading(self._services.jobs, request, view)
                return answer
            case "failed":
                raise Problem("job_failed", view.job.error or "the job failed")
            case "cancelled":
                raise Problem("job_cancelled", view.job.error or "the job was cancelled")
            case _:
                raise Problem(
                    "result_not_ready",
                    f"the job is {view.job.status}",
                    retry_after=retry_after(view, random_float()),
                )

    async def _read(self, request: Request) -> tuple[View, Reader]:
        job_id = request.path_params["job_id"]
        reader = await self._access.reader(request, job_id)
        services = self._services
        view = await read_job(
            services.jobs,
            job_id,
            tenant=reader.tenant,
            partitions=services.settings.store.partitions,
        )
        return view, reader


def _etag(view: View) -> str:
    return f'W/"{version(view)}"'


def _wants_inline(request: Request) -> bool | None:
    match request.query_params.get("onComplete"):
        case None:
            return None
        case "inline":
            return True
        case "redirect":
            return False
        case _:
            raise Problem("invalid_parameter", "onComplete is inline or redirect")
