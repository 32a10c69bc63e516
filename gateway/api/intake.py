"""Taking jobs in over HTTP, by whichever address: who asks, whether there is room, the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from gateway.access import Access
from gateway.admission import Admission
from gateway.answers import Answers
from gateway.api.sights import JobWatchers, hold, note_reading
from gateway.auth import Principal
from gateway.drafts import Draft, Drafter
from gateway.idempotency import parse_key
from gateway.models import StoredFile, View
from gateway.preferences import parse_preferences
from gateway.problems import Problem
from gateway.schemas.jobs import SubmitRequest
from gateway.services import Services
from gateway.store import JobStore
from gateway.submit import Submitted, Submitter
from gateway.tracing import begin_keeping, note_kept, span_of, trace_of
from gateway.urls import Urls

Submission = Callable[[Principal, str | None], Awaitable[Submitted]]
"""Reads a request and submits what it asks for, for a principal under an idempotency key."""


class Intake:
    """Where every submission goes through.

    Attributes:
        space: gives how many bytes of files may be taken, see `Admission.space`.
    """

    def __init__(
        self,
        services: Services,
        access: Access,
        urls: Urls,
        admission: Admission,
        watchers: JobWatchers,
    ) -> None:
        self._access = access
        self._admission = admission
        self._watchers = watchers
        self._ownership = services.ownership
        self._answers = Answers(services=services, urls=urls)
        self._jobs = services.jobs
        self._metrics = services.metrics
        self._key_required = services.settings.api.require_idempotency_key
        self._submitter = Submitter(
            services.settings,
            jobs=services.jobs,
            artifacts=services.artifacts,
            files=services.files,
            ring=services.ring,
            clock=services.clock,
        )
        self.space = admission.space
        self._drafter = Drafter(
            services.settings,
            registry=services.registry,
            ring=services.ring,
            clock=services.clock,
        )

    async def draft(self, request: Request, principal: Principal, wanted: SubmitRequest) -> Draft:
        """Return the draft of the job that is `wanted`; see `Drafter.draft`.

        Raises:
            Problem: also `endpoint_unverified`.
        """
        draft = self._drafter.draft(principal, wanted, trace_of(request))
        endpoint_id = draft.registration.id if draft.registration else None
        await self._ownership.require(draft.tenant, endpoint_id, "/callbackUrl")
        return draft

    async def submit(
        self, request: Request, draft: Draft, files: Mapping[str, StoredFile], key: str | None
    ) -> Submitted:
        """Keep the job of `draft`, see `Submitter.submit`."""
        span = span_of(request)
        if span is None:
            return await self._keep(draft, files, key)
        with begin_keeping(span, tenant=draft.tenant, job_type=draft.job_type.name) as keeping:
            try:
                submitted = await self._keep(replace(draft, trace=keeping.trace), files, key)
            except Problem as problem:
                keeping.fail(problem.code)
                raise
            note_kept(keeping, submitted.view.job.id, replayed=submitted.replayed)
            return submitted

    async def _keep(
        self, draft: Draft, files: Mapping[str, StoredFile], key: str | None
    ) -> Submitted:
        room = self._admission.room(draft.tenant)
        return await self._submitter.submit(draft, files, key, room=room)

    async def take(self, request: Request, submission: Submission) -> Response:
        """Answer 202 once the job is kept, or 200 if it ends while the client waits.

        Raises:
            Problem: it is refused, and nothing was kept.
        """
        principal = await self._access.principal(request, "submit")
        self._admission.check(principal.tenant)
        key = parse_key(request.headers.getlist("idempotency-key"), required=self._key_required)
        submitted = await submission(principal, key)
        if not submitted.replayed:
            self._admission.accepted(principal.tenant, submitted.view.job.given)
            self._metrics.accepted(submitted.view.job.type)
        return await self._answer(request, submitted)

    async def _answer(self, request: Request, submitted: Submitted) -> Response:
        view, applied = await self._after_submit(request, submitted.view)
        answer = await self._answers.accepted(view, replayed=submitted.replayed)
        answer.headers.update(applied)
        if applied and view.job.is_terminal:
            answer.status_code = 200
            del answer.headers["Retry-After"]
            answer.background = reading(self._jobs, request, view)
        return answer

    async def _after_submit(self, request: Request, view: View) -> tuple[View, dict[str, str]]:
        """Wait as the request prefers; return the job then, and the header that says so."""
        preferences = parse_preferences(request.headers.getlist("prefer"))
        if preferences.wait is None:
            return view, {}
        try:
            held = await hold(
                self._watchers,
                request,
                view,
                seconds=preferences.wait,
                holds=lambda seen: seen.job.is_terminal,
            )
        except Problem:
            # Too many wait. The job is kept, which is what was asked for.
            return view, {}
        return held or view, preferences.applied


def reading(jobs: JobStore, request: Request, view: View) -> BackgroundTask | None:
    """Return what notes, after the answer is out, that it carried the results."""
    if request.method == "HEAD":
        return None
    return BackgroundTask(note_reading, jobs, view.job)
