"""Judging a submission before anything outside is touched: type, input, callback, identifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from config import ids
from config.clock import Clock
from config.settings import Settings
from delivery.configure import policy_of
from delivery.egress import Destination, Policy, parse_destination
from delivery.endpoints import Registration, register
from delivery.errors import DestinationRefused, HeaderRefused
from delivery.headers import validate_custom_headers
from delivery.sealing import KeyRing
from gateway.auth import Principal
from gateway.faults import Fault, pointer
from gateway.jobcontext import FileRef
from gateway.jobtypes import InputInvalid, JobType, Registry, UnknownJobType, file_refs
from gateway.ownership import unverified_rate
from gateway.problems import Problem
from gateway.schemas.jobs import CallbackRequest, SubmitRequest

MAX_FILES = 100
"""How many files the input of a job may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A submission that nothing speaks against, under the identifier its job will have.

    Attributes:
        job_id: fresh, in the partition of the callback's host.
        tenant: whose job it will be.
        request: what was asked for.
        job_type: what it asks for.
        parts: JSON pointers of the members that name a file that comes along, by its part's name.
        uploads: the same for files uploaded before, by their identifiers.
        trace: what the request goes on from, if it tells; see `config.tracing`.
        destination: of the callback, if one is wanted.
        registration: of the endpoint the callback goes to.
    """

    job_id: str
    tenant: str
    request: SubmitRequest
    job_type: JobType
    parts: Mapping[str, str]
    uploads: Mapping[str, str]
    destination: Destination | None
    registration: Registration | None
    trace: str | None = None

    @property
    def max_attempts(self) -> int:
        """How often the job may run, as asked or as its type says."""
        return self.request.max_attempts or self.job_type.max_attempts

    @property
    def timeout(self) -> float:
        """Seconds an attempt may take, as asked or as its type says."""
        return self.request.timeout_seconds or self.job_type.timeout

    @property
    def queue_timeout(self) -> float | None:
        """Seconds the job may wait for its first attempt, as asked or as its type says."""
        return self.request.queue_timeout_seconds or self.job_type.queue_timeout


class Drafter:
    """Makes drafts of requests.

    Args:
        settings: of this process.
        registry: the job types on offer.
        ring: seals the secret of an endpoint that is new.
        clock: the store's time.
    """

    def __init__(
        self, settings: Settings, *, registry: Registry, ring: KeyRing, clock: Clock
    ) -> None:
        self._registry = registry
        self._ring = ring
        self._clock = clock
        self._partitions = settings.store.partitions
        self._limits = settings.delivery
        self._policy = policy_of(settings)

    def draft(
        self, principal: Principal, request: SubmitRequest, trace: str | None = None
    ) -> Draft:
        """Return the draft of the job that `request` asks for, in the trace it belongs to.

        Raises:
            Problem: `insufficient_scope`, `unknown_job_type`, `invalid_input`,
                `invalid_callback_url` or `invalid_request`.
        """
        principal.require("submit")
        job_type = self._find_type(request.type)
        refs = _check_input(job_type, request.input)
        destination = self._find_destination(request.callback_url)
        _check_headers(request.callback)
        registration = self._register(principal.tenant, destination, request.callback)
        return Draft(
            job_id=self._new_id(registration),
            tenant=principal.tenant,
            request=request,
            job_type=job_type,
            parts={ref.part: where for where, ref in refs.items() if ref.part is not None},
            uploads={ref.file_id: where for where, ref in refs.items() if ref.file_id is not None},
            destination=destination,
            registration=registration,
            trace=trace,
        )

    def _find_type(self, name: str) -> JobType:
        try:
            return self._registry.get(name)
        except UnknownJobType as error:
            fault = Fault("/type", "is no job type of this gateway")
            raise Problem(
                "unknown_job_type", "there is no such job type", faults=[fault]
            ) from error

    def _find_destination(self, url: str | None) -> Destination | None:
        return None if url is None else destination_of(url, self._policy, "/callbackUrl")

    def _register(
        self, tenant: str, destination: Destination | None, wanted: CallbackRequest | None
    ) -> Registration | None:
        if destination is None:
            return None
        scheme = wanted.signature if wanted else "v1"
        rate = unverified_rate(self._limits, tenant)
        return register(tenant, destination, self._ring, self._partitions, scheme, rate)

    def _new_id(self, registration: Registration | None) -> str:
        if registration is None:
            partition = ids.random_partition(self._partitions)
        else:
            partition = ids.partition_of(registration.id)
        return ids.new_id("job", partition, self._clock.now())


def destination_of(url: str, policy: Policy, member: str) -> Destination:
    """Return where `url` leads; no name is looked up.

    Raises:
        Problem: `invalid_callback_url`, naming `member`.
    """
    try:
        return parse_destination(url, policy)
    except DestinationRefused as error:
        fault = Fault(member, error.detail)
        raise Problem("invalid_callback_url", error.detail, faults=[fault]) from error


def too_many_endpoints() -> Problem:
    """Return what a client is told whose callbacks would go to one origin too many."""
    return Problem("too_many_endpoints", "callbacks to so many origins are kept track of, no more")


def _check_input(job_type: JobType, value: Mapping[str, object]) -> dict[str, FileRef]:
    """Return the files that the input names, each by the member that does."""
    try:
        checked = job_type.parse_input(value)
    except InputInvalid as error:
        faults = [Fault(f"/input{fault.pointer}", fault.detail) for fault in error.faults]
        detail = f"the input does not fit {job_type.name}"
        raise Problem("invalid_input", detail, faults=faults) from error
    refs = file_refs(checked, "/input")
    if len(refs) > MAX_FILES:
        fault = Fault("/input", f"names more than {MAX_FILES} files")
        raise Problem("invalid_input", "the input names too many files", faults=[fault])
    return refs


def _check_headers(callback: CallbackRequest | None) -> None:
    if callback is None:
        return
    try:
        validate_custom_headers(callback.headers)
    except HeaderRefused as error:
        path = ["callback", "headers", *([error.name] if error.name else [])]
        fault = Fault(pointer(path), error.detail)
        raise Problem("invalid_request", error.detail, faults=[fault]) from error
