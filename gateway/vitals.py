"""How the processes of a worker say that they live, and how its admin port hears of it.

By two gauges in the folder that they share: when each of them last turned, and whether any of them
was told to stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from config.clock import SECOND, Clock
from config.health import Health, Reason
from config.store import Store

_TURNED: Final = "gateway_worker_turned_timestamp_seconds"
_DRAINING: Final = "gateway_worker_draining"


class Vitals:
    """What one process of a worker says of itself."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        """Say nothing yet; `clock` is the host's."""
        self._clock = clock
        self._turned = Gauge(
            _TURNED,
            "When the loop of each worker process that speaks with the store last turned.",
            multiprocess_mode="liveall",
            registry=registry,
        )
        self._draining = Gauge(
            _DRAINING,
            "Whether a worker process was told to stop.",
            multiprocess_mode="livemax",
            registry=registry,
        )

    def turned(self) -> None:
        """Say that the loop turned now."""
        self._turned.set(self._clock.now() / SECOND)

    def draining(self) -> None:
        """Say that no further job is taken."""
        self._draining.set(1)


class _Shared(Collector):
    """What all processes count in a folder, added up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        # The library cannot read a file that was made and not yet filled.
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def shared_registry(folder: Path) -> CollectorRegistry:
    """Return a registry of what all processes count in `folder`, added up."""
    registry = CollectorRegistry()
    registry.register(_Shared(folder))
    return registry


class SharedHealth(Health):
    """The health of all processes of a worker together."""

    def __init__(
        self, store: Store, clock: Clock, registry: CollectorRegistry, *, processes: int
    ) -> None:
        """Ask `registry`, which `processes` say of themselves in."""
        super().__init__(store, clock)
        self._host_clock = clock
        self._registry = registry
        self._processes = processes

    def stalled(self) -> list[str]:
        """Return the processes whose loop turns no more."""
        oldest = self._host_clock.now() / SECOND - self.patience
        return sorted(
            f"worker process {pid}" for pid, turned in self._turns().items() if turned < oldest
        )

    async def reasons(self) -> list[Reason]:
        """Return why the worker is not ready: nothing when it is."""
        if len(self._turns()) >= self._processes:
            self.begin()
        if any(sample.value for sample in self._samples(_DRAINING)):
            self.drain()
        return await super().reasons()

    def _turns(self) -> dict[str, float]:
        return {sample.labels["pid"]: sample.value for sample in self._samples(_TURNED)}

    def _samples(self, name: str) -> Iterable[Sample]:
        families: Iterable[Metric] = self._registry.collect()
        return [sample for family in families if family.name == name for sample in family.samples]
