"""Who may read a job: the holder of an API key with scope `read`, or of a ticket for that job."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from config.clock import SECOND, Clock
from delivery.sealing import KeyRing
from gateway import tickets
from gateway.auth import Authenticator, Principal, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Whoever may read one job.

    Attributes:
        tenant: whose job it must be; None for the holder of a ticket, which names the job itself.
        ticket: the ticket, where that is what let them in.
        digest: else what the store knows their API key by.
    """

    tenant: str | None
    ticket: str | None = None
    digest: str = field(default="", repr=False)


class Access:
    """Checks the credentials of requests.

    Args:
        authenticator: knows the API keys.
        ring: its derived keys make and check tickets.
        clock: the store's time.
    """

    def __init__(self, authenticator: Authenticator, ring: KeyRing, clock: Clock) -> None:
        self._authenticator = authenticator
        self._minting = ring.derive(tickets.PURPOSE)
        self._accepted = ring.derive_all(tickets.PURPOSE)
        self._clock = clock

    async def principal(self, request: HTTPConnection, scope: Scope | None = None) -> Principal:
        """Return who sent `request`, holding `scope` where one is asked for.

        Raises:
            Problem: `unauthorized` or `insufficient_scope`.
            StoreUnavailable: nobody could be asked.
        """
        principal = await self._authenticator.authenticate(request.headers.get("authorization"))
        if scope is not None:
            principal.require(scope)
        return principal

    async def reader(self, request: HTTPConnection, job_id: str) -> Reader:
        """Return who wants to read `job_id`.

        A good ticket is enough, whatever else was sent: clients add credentials meant for others.

        Raises:
            Problem: `unauthorized` or `insufficient_scope`.
            StoreUnavailable: nobody could be asked.
        """
        ticket = request.query_params.get("ticket")
        if ticket and tickets.check(ticket, job_id, self._clock.now(), self._accepted):
            return Reader(tenant=None, ticket=ticket)
        principal = await self.principal(request, "read")
        return Reader(tenant=principal.tenant, digest=principal.digest)

    async def still_reads(self, reader: Reader) -> bool:
        """Tell whether `reader`, who was let in, would be now: asked before more is told to them.

        Whoever came with a ticket may stay until the job's end, which is all that it opens.

        Raises:
            StoreUnavailable: nobody could be asked.
        """
        if reader.ticket is not None:
            return True
        return await self._authenticator.still_has(reader.digest, "read")

    def ticket(self, job_id: str, seconds: float) -> tuple[str, int]:
        """Return a fresh ticket for `job_id`, and until when it is good (µs)."""
        expires_at = (self._clock.now() + int(seconds * SECOND)) // SECOND * SECOND
        return tickets.mint(job_id, expires_at, self._minting), expires_at

    def pass_on(self, reader: Reader, job_id: str, seconds: float) -> str:
        """Return a ticket to hand to `reader`: theirs if they came with one, else a fresh one.

        A ticket never begets another, or it would not expire.
        """
        if reader.ticket is not None:
            return reader.ticket
        return self.ticket(job_id, seconds)[0]
