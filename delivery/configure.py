"""What the settings mean to delivery, for every process that uses its store or its rules."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

from config.clock import SECOND
from config.partitions import agree_on_partitions
from config.release import PRODUCT, release
from config.settings import Settings
from config.store import Store, connect
from delivery.bounds import Retention
from delivery.egress import LOCALHOST, Policy
from delivery.proxy import Proxy
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore

_SPECIAL = re.compile(r"[()\\]")
_ESCAPED = r"\\\g<0>"

_DEFAULT_PORTS = {"http": 80, "https": 443}

_STORE_PATIENCE = 30.0
"""Seconds that a starting process waits for the store."""

_ENDS_MARGIN = 600
"""Seconds within which it will have been noticed that the time is over."""


def connect_store(settings: Settings) -> Store:
    """Return the durable store; it is connected to at first use."""
    return connect(
        settings.store.url,
        max_connections=settings.store.max_connections,
        socket_timeout=settings.store.socket_timeout_seconds,
        replica_wait=settings.store.replica_wait,
    )


async def wait_for_store(store: Store, settings: Settings) -> None:
    """Return once the store answers and agrees on the number of partitions.

    Raises:
        StoreUnavailable: it did not answer for half a minute.
        PartitionsDiffer: it was made with another number.
    """
    await store.ready(_STORE_PATIENCE)
    await agree_on_partitions(store, settings.store.partitions)


@contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """SIGTERM and SIGINT cancel the task inside the block: a start that waits can be stopped.

    For the main thread; afterwards both signals do what they do by default.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel if task else loop.stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def delivery_store(settings: Settings, store: Store) -> DeliveryStore:
    """Return delivery's transitions over `store`, with the bounds that the settings ask for."""
    limits = settings.delivery
    retention = Retention(
        delivered=int(limits.delivered_retention_seconds * SECOND),
        delivered_count=limits.delivered_max_count,
        delivered_bytes=limits.delivered_max_bytes,
        dead=int(limits.dead_retention_seconds * SECOND),
        dead_count=limits.dead_max_count,
        dead_bytes=limits.dead_max_bytes,
        redelivery=int(limits.redelivery_seconds * SECOND),
        # Whoever made a delivery may keep what it is about for this long after its end.
        ends=int((settings.jobs.result_ttl_seconds + _ENDS_MARGIN) * SECOND),
        initial_limit=limits.endpoint_limit_initial,
        max_limit=limits.endpoint_limit_max,
        host_limit=limits.host_limit,
        max_endpoints=limits.max_endpoints_per_tenant,
    )
    return DeliveryStore(store, settings.store.partitions, retention)


def key_ring(settings: Settings) -> KeyRing:
    """Return the sealing keys.

    Raises:
        SealError: none, or malformed.
    """
    return KeyRing.parse(settings.sealing.keys.get_secret_value())


def policy_of(settings: Settings) -> Policy:
    """Return where deliveries may go."""
    limits, api = settings.delivery, settings.api
    own = urlsplit(settings.public_url)
    names = {_spelled(own.hostname or ""), _spelled(api.host.lower())}
    return Policy(
        allow_http=limits.allow_http,
        allow_loopback=limits.allow_loopback,
        ports=frozenset(limits.ports) or None,
        allow_networks=limits.allow_networks,
        deny_networks=limits.deny_networks,
        allow_hosts=frozenset(limits.allow_hosts),
        deny_hosts=frozenset(limits.deny_hosts),
        # On loopback only the gateway's ports are its own, else a development profile could call
        # nobody.
        own_hosts=frozenset(names - {"", LOCALHOST}),
        own_ports=frozenset({own.port or _DEFAULT_PORTS[own.scheme], api.port} - {0}),
    )


def _spelled(host: str) -> str:
    """Return a literal address in its one spelling, a name as it is."""
    try:
        return ip_address(host).compressed
    except ValueError:
        return host


def proxy_of(settings: Settings) -> Proxy | None:
    """Return what deliveries go through."""
    return Proxy.of(settings.delivery.egress_proxy.get_secret_value())


def user_agent(settings: Settings | None) -> str:
    """Return the `user-agent` of what is sent: product, release, and whom to write to.

    That is `delivery.contact`, or else where this gateway is, from which receivers can go on;
    nobody where there are no settings.
    """
    product = f"{PRODUCT}/{release()}"
    if settings is None:
        return product
    contact = settings.delivery.contact or f"+{settings.public_url}"
    # Inside of a comment these would end it (RFC 9110, 5.6.5).
    return f"{product} ({_SPECIAL.sub(_ESCAPED, contact)})"
