"""How settings become a delivery process."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version

from config.clock import SECOND, StoreClock, SystemClock
from config.settings import DeliverySettings, Settings
from config.store import Store, agree_on_partitions, connect
from delivery.attempt import Rules
from delivery.egress import Policy
from delivery.resolver import AresLookup, PolicyResolver
from delivery.retry import Schedule
from delivery.sealing import KeyRing
from delivery.sender import Sender
from delivery.store import DeliveryStore, Retention
from delivery.transport import AiohttpTransport, Deadlines
from delivery.worker import DeliveryWorker, Pace

PRODUCT = "async-request-reply-gateway"

_STORE_PATIENCE = 30.0
"""Seconds that a starting process waits for the store."""


async def run(settings: Settings) -> None:
    """Deliver until SIGTERM or SIGINT.

    Raises:
        StoreError: the store did not answer at the start, or has another number of partitions.
    """
    async with AsyncExitStack() as stack:
        store = await open_store(settings)
        stack.push_async_callback(store.close)
        clock = StoreClock(SystemClock())
        policy = policy_of(settings.delivery)
        lookup = AresLookup()
        stack.push_async_callback(lookup.close)
        resolver = PolicyResolver(lookup, policy, deadline=settings.delivery.dns_timeout_seconds)
        stack.push_async_callback(resolver.close)
        transport = await stack.enter_async_context(_transport(settings.delivery, policy, resolver))
        worker = DeliveryWorker(
            store=store,
            deliveries=delivery_store(settings, store),
            sender=Sender(transport, clock),
            rules=_rules(settings, policy),
            clock=clock,
            pace=_pace(settings.delivery),
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await worker.run()


async def open_store(settings: Settings) -> Store:
    """Return the durable store, once it answers and agrees on the number of partitions.

    Raises:
        StoreError: it does not.
    """
    store = connect(
        settings.store.url,
        max_connections=settings.store.max_connections,
        socket_timeout=settings.store.socket_timeout_seconds,
    )
    await store.ready(_STORE_PATIENCE)
    await agree_on_partitions(store, settings.store.partitions)
    return store


def delivery_store(settings: Settings, store: Store) -> DeliveryStore:
    """Return delivery's transitions over `store`, with the retention that the settings ask for."""
    limits = settings.delivery
    retention = Retention(
        delivered=int(limits.delivered_retention_seconds * SECOND),
        dead=int(limits.dead_retention_seconds * SECOND),
        initial_limit=limits.endpoint_limit_initial,
        max_limit=limits.endpoint_limit_max,
    )
    return DeliveryStore(store, settings.store.partitions, retention)


def key_ring(settings: Settings) -> KeyRing:
    """Return the sealing keys.

    Raises:
        SealError: none, or malformed.
    """
    return KeyRing.parse(settings.sealing.keys.get_secret_value())


def policy_of(limits: DeliverySettings) -> Policy:
    """Return where deliveries may go."""
    return Policy(
        allow_http=limits.allow_http,
        allow_loopback=limits.allow_loopback,
        ports=frozenset(limits.ports) or None,
    )


def user_agent(contact: str) -> str:
    """Return the `user-agent` of callbacks: product, version, and whom to write to."""
    try:
        product = f"{PRODUCT}/{version(PRODUCT)}"
    except PackageNotFoundError:  # run from a checkout
        product = PRODUCT
    return f"{product} ({contact})" if contact else product


def _transport(
    limits: DeliverySettings, policy: Policy, resolver: PolicyResolver
) -> AiohttpTransport:
    return AiohttpTransport(
        policy=policy,
        resolver=resolver,
        deadlines=Deadlines(
            dns=limits.dns_timeout_seconds,
            connect=limits.connect_timeout_seconds,
            first_byte=limits.first_byte_timeout_seconds,
            total=limits.total_timeout_seconds,
        ),
        connections=limits.concurrency,
        per_endpoint=limits.endpoint_limit_max,
    )


def _rules(settings: Settings, policy: Policy) -> Rules:
    return Rules(
        policy=policy,
        schedule=Schedule(
            gaps=tuple(settings.delivery.gaps_seconds),
            max_age=settings.delivery.max_age_seconds,
            jitter=settings.delivery.jitter,
        ),
        ring=key_ring(settings),
        user_agent=user_agent(settings.delivery.contact),
    )


def _pace(limits: DeliverySettings) -> Pace:
    return Pace(
        concurrency=limits.concurrency,
        lease=limits.lease_seconds,
        attempt_limit=limits.total_timeout_seconds,
    )
