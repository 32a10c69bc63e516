"""From a name to addresses that may all be dialled, without a thread and within a deadline.

A look-up never runs in the shared thread pool, where a dozen hanging names would delay everybody.
One look-up is in flight per host however many wait for it, and none is repeated between the check
and the connection: what was checked is what is dialled.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

import aiodns
import pycares
from aiohttp.abc import AbstractResolver, ResolveResult

from delivery.egress import LOCALHOST, Policy, check_address

DEADLINE = 3.0
"""Seconds for one look-up, waiting for a free place included."""

MAX_LOOKUPS = 1_024
"""Look-ups in flight at once; they are cheap, and names that never answer must not fill this."""

_MAX_ADDRESSES = 64

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Takes a host name, returns its addresses; raises OSError when there are none."""


class AresLookup:
    """Look-ups by c-ares, which has threads and a cache (by the records' TTL) of its own."""

    def __init__(self, nameservers: Sequence[str] | None = None, *, search: bool = False) -> None:
        """Ask `nameservers` ("address:port"), or those of the system when None.

        The system's search list is used only with `search`: what a client calls `a.b` must never
        become `a.b.internal.example`, but an operator's own names may be short.
        """
        flags = pycares.ARES_FLAG_EDNS | (0 if search else pycares.ARES_FLAG_NOSEARCH)
        # Two tries of 1 s and 2 s fill the deadline.
        self._resolver = aiodns.DNSResolver(nameservers, timeout=1.0, tries=2, flags=flags)

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of `host`, A and AAAA; OSError when there are none."""
        try:
            found = await self._resolver.getaddrinfo(
                host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM
            )
        except aiodns.error.DNSError as error:
            raise OSError(None, "DNS look-up failed") from error
        return [_address_of(node) for node in found.nodes]

    async def close(self) -> None:
        """End every look-up."""
        await self._resolver.close()


def _address_of(node: pycares.AddrInfoNode) -> str:
    host = node.addr[0]
    return host.decode("ascii") if isinstance(host, bytes) else host


class PolicyResolver(AbstractResolver):
    """aiohttp's resolver: every address of the answer passes the policy, or the host is denied."""

    def __init__(
        self,
        lookup: Lookup,
        policy: Policy,
        *,
        deadline: float = DEADLINE,
        max_lookups: int = MAX_LOOKUPS,
    ) -> None:
        """Resolve by `lookup` within `deadline` seconds, `max_lookups` at once."""
        self._lookup = lookup
        self._policy = policy
        self._deadline = deadline
        self._places = asyncio.Semaphore(max_lookups)
        self._in_flight: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  aiohttp's signature
    ) -> list[ResolveResult]:
        """Return every address of `host`; `family` narrows nothing, all were checked.

        Raises:
            DestinationDenied: any one of the addresses may not be dialled.
            OSError: no address within the deadline.
        """
        if host == LOCALHOST and self._policy.allow_loopback:
            addresses: tuple[str, ...] = ("127.0.0.1", "::1")
        else:
            # Shielded: a caller that gives up must not take the answer from the others.
            addresses = await asyncio.shield(self._shared_lookup(host))
        return [_result(host, address, port) for address in addresses]

    def _shared_lookup(self, host: str) -> asyncio.Task[tuple[str, ...]]:
        task = self._in_flight.get(host)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._checked_lookup(host))
            self._in_flight[host] = task
            task.add_done_callback(lambda done: self._forget(host, done))
        return task

    def _forget(self, host: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        del self._in_flight[host]
        if not task.cancelled():
            task.exception()  # seen, for when nobody is left to see it

    async def _checked_lookup(self, host: str) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(self._deadline), self._places:
                addresses = tuple(await self._lookup(host))
        except TimeoutError as error:
            raise OSError(None, "DNS look-up took too long") from error
        if not 1 <= len(addresses) <= _MAX_ADDRESSES:
            raise OSError(None, f"DNS look-up gave {len(addresses)} addresses")
        for address in addresses:
            check_address(address, self._policy, host=host)
        return addresses

    async def close(self) -> None:
        """Cancel what is in flight."""
        tasks = tuple(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
