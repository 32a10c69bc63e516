"""What the processes of the gateway work with, opened once in each."""

from __future__ import annotations

from dataclasses import dataclass

from config.clock import StoreClock, SystemClock
from config.metrics import make_registry
from config.settings import Settings
from config.store import Store
from config.variables import import_from
from delivery.configure import connect_store, delivery_store, key_ring
from delivery.replay_store import ReplayStore
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore
from gateway.artifacts import ArtifactStore
from gateway.audit import AuditLog
from gateway.failed import FailedStore
from gateway.files import FileStore
from gateway.jobtypes import Registry
from gateway.metrics import JobMetrics
from gateway.outbox import Outbox
from gateway.ownership import Ownership
from gateway.store import JobStore
from gateway.work import WorkStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a request, an attempt at a job or a round of the relay may need.

    Attributes:
        settings: of this process.
        store: the durable store's connection.
        jobs: the jobs in it, for clients.
        work: the same, for those who work on them.
        outbox: the same, for relays.
        files: the uploaded files that belong to no job.
        failed: the failed jobs in it, as dead letters.
        deliveries: the callback endpoints in it.
        replays: of dead letters of either kind.
        artifacts: bytes kept outside the store.
        audit: records what admins and operators do.
        ownership: asks endpoints whether they want callbacks.
        registry: the job types on offer.
        ring: seals and opens, and derives the key of tickets.
        clock: the store's time.
        metrics: what this process counts.
    """

    settings: Settings
    store: Store
    jobs: JobStore
    work: WorkStore
    outbox: Outbox
    files: FileStore
    failed: FailedStore
    deliveries: DeliveryStore
    replays: ReplayStore
    artifacts: ArtifactStore
    audit: AuditLog
    ownership: Ownership
    registry: Registry
    ring: KeyRing
    clock: StoreClock
    metrics: JobMetrics


def open_services(settings: Settings) -> Services:
    """Return the services that `settings` describe; the store is connected to at first use.

    Raises:
        DefinitionError: a job type's module cannot be used.
        SealError: a sealing key cannot be used.
        ArtifactError: the artifact store cannot be used.
    """
    return services_on(connect_store(settings), settings)


def services_on(store: Store, settings: Settings) -> Services:
    """Return the services that `settings` describe, on a store that is the caller's to close.

    Raises:
        DefinitionError, SealError, ArtifactError: as `open_services` does.
    """
    import_from(settings.handlers_path)
    clock = StoreClock(SystemClock())
    deliveries = delivery_store(settings, store)
    ring = key_ring(settings)
    scripts = (store, settings.store.partitions, clock, deliveries.retention)
    return Services(
        settings=settings,
        store=store,
        jobs=JobStore(*scripts),
        work=WorkStore(*scripts),
        outbox=Outbox(*scripts),
        files=FileStore(*scripts),
        failed=FailedStore(*scripts),
        deliveries=deliveries,
        replays=ReplayStore(*scripts),
        artifacts=ArtifactStore(settings.artifacts.url),
        audit=AuditLog(store, clock, settings.api),
        ownership=Ownership(
            deliveries=deliveries, ring=ring, clock=clock, limits=settings.delivery
        ),
        registry=Registry.load(settings.jobs.modules, settings.profile),
        ring=ring,
        clock=clock,
        metrics=JobMetrics(make_registry(store)),
    )
