"""What a process counts, as Prometheus reads it: one registry, and its page.

Names begin with `gateway_`, durations are seconds, counters end in `_total`, and no label takes
values that clients choose. Numbers that live in the store are read when the page is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from config.clock import Clock
from config.errors import StoreError
from config.store import Outcome, Store

_log = logging.getLogger("config.metrics")

# Each counter and histogram would come with another series that says when it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]

SHORT: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Bounds for what takes milliseconds, in seconds."""

LONG: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Bounds for what may take hours, in seconds."""

_READ_SECONDS: Final = 2.0
_KNOWN_FOR: Final = 1.0


def make_registry(store: Store) -> CollectorRegistry:
    """Return a registry that knows the process and how `store` answers it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    watch_store(registry, store)
    return registry


def watch_store(registry: CollectorRegistry, store: Store) -> None:
    """Count in `registry` how `store` answers."""
    seconds = Histogram(
        "gateway_store_round_trip_seconds",
        "Calls of the durable store, retries included, by what came of them.",
        ["outcome"],
        buckets=SHORT,
        registry=registry,
    )
    outcomes: tuple[Outcome, ...] = get_args(Outcome)
    by_outcome = {outcome: seconds.labels(outcome) for outcome in outcomes}

    def observe(took: float, outcome: Outcome) -> None:
        by_outcome[outcome].observe(took)

    store.watch(observe)


class StoreNumbers(Collector):
    """Numbers that live in the store, read at most once a second however often the page is.

    While the store does not answer they are not on the page: an old number would look like one of
    now.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        read: Callable[[], Awaitable[Sequence[Metric]]],
        clock: Clock,
    ) -> None:
        """Read by `read`, which may raise `StoreError`."""
        self._read = read
        self._clock = clock
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._found: Sequence[Metric] = ()
        registry.register(self)

    async def refresh(self) -> None:
        """Read the numbers, unless they were read just now."""
        async with self._reading:
            now = self._clock.monotonic()
            if self._read_at is not None and now - self._read_at < _KNOWN_FOR:
                return
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    found = await self._read()
                self._found = [*found, _store_up(1)]
            except (StoreError, TimeoutError) as error:
                _log.warning("metrics.store_unavailable", extra={"error": str(error)})
                self._found = [_store_up(0)]
            self._read_at = self._clock.monotonic()

    def collect(self) -> Iterable[Metric]:
        """Return what was read last."""
        return self._found

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is, only the store knows."""
        return ()


def _store_up(value: int) -> Metric:
    return GaugeMetricFamily(
        "gateway_store_up", "Whether the durable store gave the numbers that live in it.", value
    )


class Page:
    """The page of `/metrics`."""

    def __init__(
        self, registry: Collector, refresh: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Show `registry`, after `refresh`."""
        self._registry = registry
        self._refresh = refresh

    async def render(self, accept: str) -> tuple[str, bytes]:
        """Return the page's media type and the page, in the form that `accept` asks for."""
        if self._refresh is not None:
            await self._refresh()
        encode, media_type = choose_encoder(accept)
        return media_type, await asyncio.to_thread(encode, self._registry)
