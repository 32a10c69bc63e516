"""Endpoints' transitions, one method each; the scripts in `lua/` demand the states.

Every method may be called again after `StoreUnavailable` with the same arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from config.ids import partition_of
from config.scripts import Call, load_script, pairs, partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION, Retention
from delivery.endpoints import (
    MAX_DISABLED_URLS,
    Change,
    DisabledUrl,
    Endpoint,
    Mirror,
    Registration,
    Unset,
    decode_endpoint,
)
from delivery.errors import TooManyEndpoints
from delivery.models import Scheme

MAX_ENDPOINTS_LISTED = 1_000
"""How many of a tenant's endpoints one partition lists."""

MAX_URLS_LISTED = 1_000
"""How many disabled URLs of all of those together."""


class EndpointStore:
    """The endpoints of all partitions."""

    def __init__(
        self, store: Store, partitions: int, retention: Retention = DEFAULT_RETENTION
    ) -> None:
        self._store = store
        self.partitions = partitions
        self.retention = retention

    async def register_endpoint(self, registration: Registration) -> tuple[Endpoint, bool]:
        """Make the endpoint unless it exists; return it, and whether it was made now.

        Raises:
            TooManyEndpoints: the tenant has as many as it may.
        """
        created, *described = await self._run(
            "register_endpoint",
            partition_of(registration.id),
            registration.id,
            registration.tenant,
            registration.origin,
            registration.secret,
            self.retention.initial_limit,
            registration.scheme,
            registration.scheme_secret,
            self.retention.max_endpoints,
            registration.hold,
        )
        if created < 0:
            raise TooManyEndpoints(registration.tenant)
        return _endpoint(described[0]), bool(created)

    async def read_endpoint(self, endpoint_id: str) -> Endpoint | None:
        """Return the endpoint, or None when there is none of that identifier."""
        described = await self._run("read_endpoint", partition_of(endpoint_id), endpoint_id)
        return _endpoint(described) if described else None

    async def list_endpoints(self, tenant: str) -> list[Endpoint]:
        """Return the tenant's endpoints, oldest first; at most a thousand of each partition."""
        replies = await self._everywhere(
            "list_endpoints", tenant, MAX_ENDPOINTS_LISTED, MAX_URLS_LISTED
        )
        found = (_endpoint(described) for reply in replies for described in reply)
        return sorted(found, key=lambda endpoint: (endpoint.created_at, endpoint.id))

    async def pause_endpoint(self, endpoint_id: str) -> Endpoint | None:
        """Hold the endpoint's deliveries back; return it, None when there is none.

        What is being attempted goes on. The time counts towards nobody's age.
        """
        described = await self._run("pause_endpoint", partition_of(endpoint_id), endpoint_id, 1)
        return _endpoint(described) if described else None

    async def resume_endpoint(self, endpoint_id: str) -> Endpoint | None:
        """Let the endpoint's deliveries go again; return it, None when there is none."""
        described = await self._run("pause_endpoint", partition_of(endpoint_id), endpoint_id, 0)
        return _endpoint(described) if described else None

    async def change_endpoint(self, endpoint_id: str, change: Change) -> Endpoint | None:
        """Do to the endpoint what an operator says; return it, None when there is none.

        Raises:
            ValueError: more disabled URLs than `MAX_DISABLED_URLS`.
        """
        urls = () if isinstance(change.disabled, Unset) else change.disabled
        if len(urls) > MAX_DISABLED_URLS:
            raise ValueError(f"more than {MAX_DISABLED_URLS} disabled URLs")
        described = await self._run(
            "patch_endpoint",
            partition_of(endpoint_id),
            endpoint_id,
            _given(change.rate),
            _given(change.max_limit),
            int(not isinstance(change.disabled, Unset)),
            *(part for url in urls for part in url),
        )
        return _endpoint(described) if described else None

    async def delete_endpoint(self, endpoint_id: str, *, not_lent_since: int | None = None) -> bool:
        """Forget the endpoint, unless deliveries to it wait or are being attempted.

        Args:
            endpoint_id: the endpoint.
            not_lent_since: the instant, µs, since which `lend_endpoint` must not have been called.

        Returns:
            Whether it is gone; one that never was is.
        """
        since = "" if not_lent_since is None else not_lent_since
        done = await self._run("delete_endpoint", partition_of(endpoint_id), endpoint_id, since)
        return bool(done >= 0)

    async def replace_secrets(
        self, endpoint_id: str, scheme: Scheme, *, old: bytes, new: bytes
    ) -> tuple[Endpoint, bool] | None:
        """Give the endpoint other secrets for `scheme`, made of those it has.

        Args:
            endpoint_id: the endpoint.
            scheme: whose secrets.
            old: as they were read, sealed; empty for none.
            new: sealed.

        Returns:
            The endpoint as it is now, and whether they are in place: they are not when somebody
            else changed them since. None when there is no such endpoint.
        """
        reply = await self._run(
            "replace_secrets", partition_of(endpoint_id), endpoint_id, scheme, old, new
        )
        if reply is None:
            return None
        done, described = reply
        return _endpoint(described), bool(done)

    async def lend_endpoint(self, endpoint_id: str, *, others: int, part: float) -> Endpoint | None:
        """Let the endpoint have mirrors in `others` partitions, and keep `part` of its rate.

        Returns:
            The endpoint as it is now; None when there is none.
        """
        described = await self._run(
            "lend_endpoint", partition_of(endpoint_id), endpoint_id, others, _or_nothing(part)
        )
        return _endpoint(described) if described else None

    async def learn_urls(self, endpoint_id: str, urls: Sequence[DisabledUrl]) -> Endpoint | None:
        """Disable URLs that answered 410 to mirrors of the endpoint.

        Returns:
            The endpoint as it is now; None when there is none.
        """
        described = await self._run(
            "learn_urls",
            partition_of(endpoint_id),
            endpoint_id,
            *(part for url in urls for part in (url.hash, url.entry())),
        )
        return _endpoint(described) if described else None

    async def mirror(self, mirrors: Sequence[Mirror], *, make: bool) -> None:
        """Make mirrors like what they mirror; those that are not there too, or leave them."""
        await self._store.run_all(
            [
                self._call(
                    "mirror_endpoint",
                    partition_of(each.id),
                    each.id,
                    each.own.tenant,
                    each.own.origin,
                    self.retention.initial_limit,
                    int(make),
                    int(each.own.paused_since is not None),
                    _or_nothing(each.own.rate),
                    _or_nothing(each.own.max_limit),
                    _or_nothing(each.own.unverified_rate),
                    each.own.id,
                    _or_nothing(each.part),
                    each.others,
                    each.own.read_at,
                    each.own.disabled_at,
                    len(each.own.disabled),
                    *(part for url in each.own.disabled for part in (url.hash, url.entry())),
                    each.secrets.get("v1", b""),
                    *(
                        part
                        for scheme, sealed in each.secrets.items()
                        if scheme != "v1"
                        for part in (scheme, sealed)
                    ),
                )
                for each in mirrors
            ]
        )

    def _call(self, name: str, partition: int, *args: str | bytes | int) -> Call:
        return Call(load_script("delivery", name), partition_prefix(partition), args)

    async def _run(self, name: str, partition: int, *args: str | bytes | int) -> Any:
        return await self._store.run(self._call(name, partition, *args))

    async def _everywhere(self, name: str, *args: str | bytes | int) -> list[Any]:
        return await self._store.run_all(
            [self._call(name, partition, *args) for partition in range(self.partitions)]
        )


def _or_nothing(value: float | None) -> str:
    return "" if value is None else str(value)


def _given(value: float | Unset | None) -> str:
    match value:
        case Unset():
            return ""
        case None:
            return "null"
        case _:
            return str(value)


def _endpoint(described: list[Any]) -> Endpoint:
    endpoint_id, flat, inflight, waiting, breaker_open, disabled, read_at = described
    return decode_endpoint(
        endpoint_id.decode(),
        pairs(flat),
        inflight=inflight,
        waiting=waiting,
        breaker_open=bool(breaker_open),
        disabled=pairs(disabled),
        read_at=read_at,
    )
