"""What `gateway doctor` looks at, one thing after the other; it changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import get_args
from urllib.parse import unquote, urlsplit

from prometheus_client import CollectorRegistry

from config.clock import StoreClock, SystemClock
from config.errors import StoreError, StoreUnavailable
from config.partitions import kept_partitions
from config.server import Server, read_server
from config.settings import Settings
from config.store import Store, connect
from delivery.configure import connect_store, delivery_store, key_ring
from delivery.errors import SealError
from delivery.metrics import delivery_numbers
from gateway.cli.findings import (
    Finding,
    of_dead,
    of_disk,
    of_durable,
    of_keys_file,
    of_partitions,
    of_senders,
    of_soft,
    of_workers,
)
from gateway.keys import START, KeyStore
from gateway.metrics import job_numbers
from gateway.models import Priority
from gateway.outbox import Outbox

_TENANTS = 20
_SECRETS = 20


async def examine(settings: Settings, data_dir: Path) -> AsyncIterator[Finding]:
    """Yield what is found about the installation that `settings` describe."""
    async with AsyncExitStack() as stack:
        store = connect_store(settings)
        stack.push_async_callback(store.close)
        durable = await _server(store, "store")
        if isinstance(durable, Finding):
            yield durable
        else:
            for finding in of_durable(durable, settings.store.ack):
                yield finding
        soft = connect(
            settings.broker.url,
            max_connections=2,
            socket_timeout=settings.store.socket_timeout_seconds,
        )
        stack.push_async_callback(soft.close)
        broker = await _server(soft, "broker")
        if isinstance(broker, Finding):
            yield broker
        elif isinstance(durable, Server):
            for finding in of_soft(broker, durable):
                yield finding
        if isinstance(durable, Server):
            async for finding in _contents(store, settings):
                yield finding
    for finding in _disks(settings, data_dir):
        yield finding
    for finding in _keys_file(settings.sealing.keys_file):
        yield finding


async def _server(store: Store, check: str) -> Server | Finding:
    try:
        return await read_server(store, SystemClock())
    except StoreError as error:
        advice = f"see whether it runs, and whether {check}.url is right"
        return Finding(check, "fault", f"does not answer: {error}", advice)


async def _contents(store: Store, settings: Settings) -> AsyncIterator[Finding]:
    try:
        partitions = await kept_partitions(store)
        yield of_partitions(partitions, settings.store.partitions)
        if partitions != settings.store.partitions:
            return
        async for finding in _work(store, settings):
            yield finding
        yield await _sealed(store, settings)
    except StoreError as error:
        yield Finding("contents", "fault", f"cannot be read: {error}", "see the store's log")


async def _work(store: Store, settings: Settings) -> AsyncIterator[Finding]:
    """Judge by the numbers that are on the admin ports' pages as well."""
    clock, partitions = StoreClock(SystemClock()), settings.store.partitions
    retention = delivery_store(settings, store).retention
    threads = sum((await Outbox(store, partitions, clock, retention).muster()).values())
    registry = CollectorRegistry()
    await job_numbers(registry, store, partitions, clock).refresh()
    await delivery_numbers(registry, store, partitions, clock).refresh()

    def number(name: str, **labels: str) -> float:
        value = registry.get_sample_value(f"gateway_{name}", labels)
        if value is None:
            raise StoreUnavailable("it stopped to answer")
        return value

    oldest = max(
        number("job_queue_oldest_age_seconds", priority=each) for each in get_args(Priority)
    )
    pending = int(number("jobs", status="pending"))
    yield of_workers(threads=threads, pending=pending, oldest=oldest)
    processes = int(number("delivery_processes"))
    yield of_senders(processes=processes, late=number("delivery_due_lag_seconds"))
    yield of_dead(
        callbacks=int(number("delivery_dead_letters")),
        jobs=int(number("job_dead_letters")),
        breakers=int(number("delivery_breakers_open")),
    )


async def _sealed(store: Store, settings: Settings) -> Finding:
    """Open some of the endpoints' secrets: a ring without their key opens no callback's either."""
    deliveries, ring = delivery_store(settings, store), key_ring(settings)
    tenants, _ = await KeyStore(store).list_tenants(after=START, limit=_TENANTS)
    opened = 0
    for tenant in {"default", *(each.id for each in tenants)}:
        for endpoint in (await deliveries.list_endpoints(tenant))[:_SECRETS]:
            try:
                for sealed in endpoint.secrets.values():
                    ring.open(sealed, row=endpoint.id)
            except SealError as error:
                says = f"the secret of {endpoint.origin} does not open: {error}"
                advice = "put the key that sealed it back into sealing.keys, below the first"
                return Finding("sealing", "fault", says, advice)
            opened += 1
    if opened == 0:
        return Finding("sealing", "ok", "nothing is sealed yet")
    return Finding("sealing", "ok", f"the keys open what is kept ({opened} secrets tried)")


def _disks(settings: Settings, data_dir: Path) -> list[Finding]:
    places = {"data disk": data_dir}
    parts = urlsplit(settings.artifacts.url)
    if parts.scheme == "file":
        places["artifacts disk"] = Path(unquote(parts.path))
    found = []
    for check, place in places.items():
        if not place.is_dir():
            if check != "data disk":
                advice = "make the folder, or name another in artifacts.url"
                found.append(Finding(check, "fault", f"{place} is not there", advice))
            continue
        usage = shutil.disk_usage(place)
        found.append(of_disk(check, str(place), free=usage.free, total=usage.total))
        if check != "data disk" and not os.access(place, os.W_OK):
            advice = "let the user that runs the gateway write there"
            found.append(Finding(check, "fault", f"{place} cannot be written to", advice))
    return found


def _keys_file(name: str) -> list[Finding]:
    return [of_keys_file(name, Path(name).stat().st_mode)] if name else []
