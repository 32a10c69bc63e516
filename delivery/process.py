"""One delivery process, put together as the settings say."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from config.admin import admin_port
from config.clock import StoreClock, SystemClock
from config.health import Health
from config.metrics import Page, make_registry
from config.sections import DeliverySettings
from config.settings import Settings
from config.tasks import background, cancel_all
from config.tracing import open_tracer
from config.variables import allow_open_files
from delivery.attempt import Rules
from delivery.configure import (
    cancelled_by_signals,
    connect_store,
    delivery_store,
    key_ring,
    policy_of,
    proxy_of,
    user_agent,
    wait_for_store,
)
from delivery.egress import Policy
from delivery.metrics import DeliveryMetrics, delivery_numbers
from delivery.mirrors import MirrorNews
from delivery.mover import DeliveryMover
from delivery.notices import Notices, operator_of
from delivery.proxy import Via
from delivery.replay_store import ReplayStore
from delivery.resolver import AresLookup, PolicyResolver
from delivery.retiring import Retirer
from delivery.retry import Schedule
from delivery.runner import ReplayRunner
from delivery.sender import Sender
from delivery.transport import AiohttpTransport, Deadlines, Gate
from delivery.worker import DeliveryWorker, Pace

if TYPE_CHECKING:
    from config.spans import Tracer

_KEEP = 8
"""Open connections for each one in use, at most."""

_OTHER_FILES = 256
"""Descriptors left for everything that is no callback's connection."""


async def run(settings: Settings) -> None:
    """Deliver until SIGTERM or SIGINT.

    Raises:
        AdminPortError: its admin port cannot be opened.
        OperatorUnusable: the operator's URL may not be called.
        StoreError: the store did not answer at the start, or has another number of partitions.
    """
    async with AsyncExitStack() as stack:
        store = connect_store(settings)
        stack.push_async_callback(store.close)
        clock = StoreClock(SystemClock())
        policy = policy_of(settings)
        operator = operator_of(settings.operator, policy)
        registry = make_registry(store)
        numbers = delivery_numbers(registry, store, settings.store.partitions, clock)
        metrics = DeliveryMetrics(registry)
        health, page = Health(store, clock), Page(registry, numbers.refresh)
        await stack.enter_async_context(admin_port(settings.admin, "delivery", health, page))
        with cancelled_by_signals():
            await wait_for_store(store, settings)
        tracer = open_tracer(settings.tracing, "delivery")
        if tracer is not None:
            stack.push_async_callback(asyncio.to_thread, tracer.close)
        lookup = AresLookup()
        stack.push_async_callback(lookup.close)
        resolver = PolicyResolver(lookup, policy, deadline=settings.delivery.dns_timeout_seconds)
        stack.push_async_callback(resolver.close)
        gate = Gate.under(policy, resolver, _via(settings, stack))
        transport = await stack.enter_async_context(_transport(settings.delivery, gate))
        deliveries = delivery_store(settings, store)
        worker = DeliveryWorker(
            store=store,
            deliveries=deliveries,
            sender=Sender(transport, clock),
            rules=_rules(settings, policy, tracer),
            clock=clock,
            pace=_pace(settings.delivery),
            metrics=metrics,
            beat=health.beat,
        )
        replays = ReplayStore(store, settings.store.partitions, clock, deliveries.retention)
        mover = DeliveryMover(deliveries, replays, ring=key_ring(settings), policy=policy)
        runner = ReplayRunner(store=store, replays=replays, mover=mover, clock=clock)
        notices = Notices(store, deliveries, operator, key_ring(settings))
        news = MirrorNews(store, deliveries, key_ring(settings))
        retirer = Retirer(deliveries, clock, metrics)
        loops = [notices.run(), news.run(), retirer.run(), *runner.loops()]
        stack.push_async_callback(cancel_all, background(loops, worker.stop))

        def stop() -> None:
            health.drain()
            worker.stop()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        health.begin()
        await worker.run()


def _via(settings: Settings, stack: AsyncExitStack) -> Via | None:
    proxy = proxy_of(settings)
    if proxy is None:
        return None
    lookup = AresLookup(search=True)
    stack.push_async_callback(lookup.close)
    return Via(proxy=proxy, lookup=lookup)


def _transport(limits: DeliverySettings, gate: Gate) -> AiohttpTransport:
    return AiohttpTransport(
        gate=gate,
        deadlines=Deadlines(
            dns=limits.dns_timeout_seconds,
            connect=limits.connect_timeout_seconds,
            first_byte=limits.first_byte_timeout_seconds,
            total=limits.total_timeout_seconds,
        ),
        connections=limits.concurrency,
        # Endpoints take turns: those waiting for theirs outnumber those in use, and to connect
        # anew costs more than a request. Bounded by what the system lets this process open.
        keep=_kept(limits.concurrency),
        # aiohttp counts per host and port, over all tenants; what one endpoint may have is the
        # schedule's to say.
        per_endpoint=limits.concurrency,
    )


def _kept(concurrency: int) -> int:
    wanted = _KEEP * concurrency
    return max(concurrency, min(wanted, allow_open_files(wanted + _OTHER_FILES) - _OTHER_FILES))


def _rules(settings: Settings, policy: Policy, tracer: Tracer | None) -> Rules:
    return Rules(
        policy=policy,
        schedule=Schedule(
            gaps=tuple(settings.delivery.gaps_seconds),
            max_age=settings.delivery.max_age_seconds,
            jitter=settings.delivery.jitter,
        ),
        ring=key_ring(settings),
        user_agent=user_agent(settings),
        tracer=tracer,
    )


def _pace(limits: DeliverySettings) -> Pace:
    return Pace(
        concurrency=limits.concurrency,
        lease=limits.lease_seconds,
        attempt_limit=limits.total_timeout_seconds,
    )
