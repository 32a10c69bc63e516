"""Jobs over HTTP: submit one, ask how it stands, fetch its result."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.ids import random_float
from gateway.access import Access, Reader
from gateway.auth import Principal
from gateway.bodies import body_kind, boundary_of, limited, parse_json, read_json
from gateway.documents import document, retry_after, version
from gateway.drafts import Drafter
from gateway.idempotency import parse_key
from gateway.models import View
from gateway.multipart import Multipart
from gateway.problems import Problem
from gateway.reading import read_file_results, read_job
from gateway.resource import json_response, matches, resource
from gateway.schemas import SubmitRequest, parse_submit
from gateway.services import Services
from gateway.submit import Submitted, Submitter
from gateway.uploads import read_request, store_files
from gateway.urls import Urls

CACHE = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Prefer, Origin"}
"""Headers of everything that one reader may keep and must revalidate."""


class JobsApi:
    """The addresses under `/v1/jobs`, artifacts aside."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._settings = services.settings.api
        self._submitter = Submitter(
            services.settings,
            jobs=services.jobs,
            artifacts=services.artifacts,
            ring=services.ring,
            clock=services.clock,
        )
        self._drafter = Drafter(
            services.settings,
            registry=services.registry,
            ring=services.ring,
            clock=services.clock,
        )

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/v1/jobs", POST=self.submit),
            resource("/v1/jobs/{job_id}", GET=self.status),
            resource("/v1/jobs/{job_id}/result", GET=self.result),
        ]

    async def submit(self, request: Request) -> Response:
        """`POST /v1/jobs`: 202 once the job is kept."""
        principal = await self._access.principal(request, "submit")
        key = parse_key(
            request.headers.getlist("idempotency-key"),
            required=self._settings.require_idempotency_key,
        )
        if body_kind(request.headers) == "json":
            submitted = await self._submit_json(request, principal, key)
        else:
            submitted = await self._submit_multipart(request, principal, key)
        return await self._accepted(submitted)

    async def _submit_json(
        self, request: Request, principal: Principal, key: str | None
    ) -> Submitted:
        limits = self._settings
        value = await read_json(request, limit=limits.body_limit_bytes, depth=limits.json_depth)
        draft = self._drafter.draft(principal, self._parse(value))
        return await self._submitter.submit(draft, {}, key)

    async def _submit_multipart(
        self, request: Request, principal: Principal, key: str | None
    ) -> Submitted:
        limits = self._settings
        body = limited(request, limits.upload_limit_bytes + limits.body_limit_bytes)
        form = Multipart(body, boundary_of(request.headers))
        data = await read_request(form, limit=limits.body_limit_bytes)
        value = parse_json(data, depth=limits.json_depth)
        draft = self._drafter.draft(principal, self._parse(value))
        files = await store_files(
            form,
            draft.parts,
            artifacts=self._services.artifacts,
            job_id=draft.job_id,
            limit=limits.upload_limit_bytes,
        )
        return await self._submitter.submit(draft, files, key)

    def _parse(self, value: Any) -> SubmitRequest:
        return parse_submit(value, metadata_limit=self._settings.metadata_limit_bytes)

    async def _accepted(self, submitted: Submitted) -> Response:
        view = submitted.view
        url = self._urls.job(view.job.id)
        headers = {
            "Location": url,
            "Link": f'<{url}>; rel="status"',
            "Retry-After": str(retry_after(view, random_float())),
            "Cache-Control": "no-store",
        }
        if submitted.replayed:
            headers["Idempotent-Replayed"] = "true"
        return json_response(await self._document(view), 202, headers)

    async def status(self, request: Request) -> Response:
        """`GET /v1/jobs/{jobId}`: how the job stands; a completed one leads on to its result."""
        inline = _wants_inline(request)
        view, reader = await self._read(request)
        if view.job.status == "completed" and not (
            inline if inline is not None else view.job.on_complete == "inline"
        ):
            return await self._see_result(view, reader)
        etag = f'W/"{version(view)}"'
        headers = {**CACHE, "ETag": etag}
        if not view.job.is_terminal:
            headers["Retry-After"] = str(retry_after(view, random_float()))
        if matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        return json_response(await self._document(view), 200, headers)

    async def _see_result(self, view: View, reader: Reader) -> Response:
        job_id = view.job.id
        ticket = self._access.pass_on(reader, job_id, self._settings.redirect_ticket_seconds)
        headers = {"Location": self._urls.result(job_id, ticket), "Cache-Control": "no-store"}
        return json_response(await self._document(view), 303, headers)

    async def result(self, request: Request) -> Response:
        """`GET /v1/jobs/{jobId}/result`: the job document of a completed job."""
        view, _ = await self._read(request)
        match view.job.status:
            case "completed":
                return json_response(await self._document(view), 200, CACHE)
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

    async def _document(self, view: View) -> dict[str, Any]:
        services = self._services
        results = await read_file_results(view, services.artifacts)
        return document(view, urls=self._urls, ring=services.ring, file_results=results)


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
