"""Configured routes over HTTP: a POST of a job type's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config import ids
from gateway.api.intake import Intake
from gateway.artifacts import ArtifactStore, input_path
from gateway.auth import Principal
from gateway.bodies import JSON, boundary_of, limited, parse_json
from gateway.drafts import Draft
from gateway.faults import Fault, pointer
from gateway.models import StoredFile
from gateway.multipart import Multipart, Part
from gateway.problems import Problem
from gateway.resource import resource
from gateway.routes import JobRoute, job_routes, relocated, route_body_kind, submission
from gateway.services import Services
from gateway.submit import Submitted
from gateway.uploads import discard, store_part


class RoutesApi:
    """The addresses that the settings map to job types: submitting, by another way in.

    Raises:
        DefinitionError: one of them cannot be had.
    """

    def __init__(self, services: Services, intake: Intake) -> None:
        self._services = services
        self._settings = services.settings.api
        self._intake = intake
        self._routes = job_routes(services.settings, services.registry)

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [resource(each.path, POST=partial(self.submit_at, each)) for each in self._routes]

    async def submit_at(self, route: JobRoute, request: Request) -> Response:
        """`POST <route>`: what `POST /v1/jobs` does, with the input as the body."""
        return await self._intake.take(request, partial(self._submit, route, request))

    async def _submit(
        self, route: JobRoute, request: Request, principal: Principal, key: str | None
    ) -> Submitted:
        try:
            if route_body_kind(request.headers) == "json":
                return await self._read_json(route, request, principal, key)
            return await self._read_form(route, request, principal, key)
        except Problem as problem:
            raise relocated(problem) from problem

    async def _read_json(
        self, route: JobRoute, request: Request, principal: Principal, key: str | None
    ) -> Submitted:
        limits = self._settings
        data = bytearray()
        async for chunk in limited(request, limits.body_limit_bytes):
            data += chunk
        body = parse_json(bytes(data), depth=limits.json_depth)
        draft = await self._intake.draft(request, principal, submission(route, body))
        return await self._intake.submit(request, draft, {}, key)

    async def _read_form(
        self, route: JobRoute, request: Request, principal: Principal, key: str | None
    ) -> Submitted:
        """Take the parts in whatever order they come: files wait under an identifier of a job.

        That job is the one submitted, unless its callback's host asks for another partition.
        """
        limits, services = self._settings, self._services
        partition = ids.random_partition(services.settings.store.partitions)
        staged = ids.new_id("job", partition, services.clock.now())
        try:
            with self._intake.space(principal.tenant, limits.upload_limit_bytes) as allowed:
                form = RouteForm(
                    route,
                    artifacts=services.artifacts,
                    job_id=staged,
                    body_limit=limits.body_limit_bytes,
                    file_limit=allowed,
                    depth=limits.json_depth,
                )
                stream = limited(request, allowed + limits.body_limit_bytes)
                await form.read(Multipart(stream, boundary_of(request.headers)))
            draft = await self._intake.draft(request, principal, submission(route, form.body))
            draft, files = await self._place(draft, form.files, staged)
        except BaseException:
            await discard(services.artifacts, staged)
            raise
        if draft.job_id != staged:
            await discard(services.artifacts, staged)
        return await self._intake.submit(request, draft, files, key)

    async def _place(
        self, draft: Draft, files: Mapping[str, StoredFile], staged: str
    ) -> tuple[Draft, Mapping[str, StoredFile]]:
        """Return the draft and its files under one identifier."""
        if draft.registration is None or ids.partition_of(draft.job_id) == ids.partition_of(staged):
            return replace(draft, job_id=staged), files
        moved: dict[str, StoredFile] = {}
        artifacts = self._services.artifacts
        try:
            for number, (name, file) in enumerate(files.items()):
                path = input_path(draft.job_id, number)
                await artifacts.copy(file.path, path)
                moved[name] = replace(file, path=path)
        except BaseException:
            await discard(artifacts, draft.job_id)
            raise
        return draft, moved


class RouteForm:
    """A multipart body at a route: members of the input in parts, files among them.

    Args:
        route: says what the parts stand for.
        artifacts: where files go.
        job_id: whose files they are.
        body_limit: bytes that the parts which are no files may have together.
        file_limit: bytes that a file may have.
        depth: of the JSON in a part.

    Attributes:
        body: what the same request would be in JSON, files as references to parts.
        files: what was uploaded, by the name that `body` refers to.
    """

    def __init__(
        self,
        route: JobRoute,
        *,
        artifacts: ArtifactStore,
        job_id: str,
        body_limit: int,
        file_limit: int,
        depth: int,
    ) -> None:
        self.body: dict[str, Any] = {}
        self.files: dict[str, StoredFile] = {}
        self._route = route
        self._artifacts = artifacts
        self._job_id = job_id
        self._left = body_limit
        self._body_limit = body_limit
        self._file_limit = file_limit
        self._depth = depth

    async def read(self, form: Multipart) -> None:
        """Read all of `form`; files that are stored when this raises are the caller's to delete.

        Raises:
            Problem: `malformed_body`, `malformed_json`, `body_too_large`, `unknown_member`.
            ArtifactError: the artifact store failed.
        """
        while (part := await form.next_part()) is not None:
            is_file = part.filename is not None
            member = self._route.member(part.name, is_file=is_file)
            if member in self.body:
                raise Problem("malformed_body", f"two parts stand for {member}")
            kind = self._route.forms.get(member)
            if is_file and kind == "file":
                self.files[member] = await store_part(
                    form,
                    part,
                    artifacts=self._artifacts,
                    path=input_path(self._job_id, len(self.files)),
                    limit=self._file_limit,
                )
                self.body[member] = {"part": member}
            elif is_file and kind is None:
                fault = Fault(pointer([member]), "is not a member of this object")
                raise Problem("unknown_member", "a file was uploaded for no member", faults=[fault])
            else:
                self.body[member] = await self._value(form, part, is_json=kind in {"json", "file"})

    async def _value(self, form: Multipart, part: Part, *, is_json: bool) -> Any:
        data = bytearray()
        async for chunk in form.chunks():
            data += chunk
            if len(data) > self._left:
                detail = f"the parts that are no files may be at most {self._body_limit} bytes"
                raise Problem("body_too_large", detail)
        self._left -= len(data)
        if is_json or part.content_type.partition(";")[0].strip().lower() == JSON:
            return parse_json(bytes(data), depth=self._depth)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise Problem("malformed_body", f"the part {part.name} is not UTF-8") from error
