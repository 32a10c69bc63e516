"""What the gateway counts: requests and attempts as they happen, and what its store holds."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from config.clock import SECOND, Clock
from config.metrics import LONG, StoreNumbers
from config.scripts import Call, load_script, pairs, partition_prefix
from config.store import Store
from delivery.metrics import denied_destinations
from gateway.models import Priority, Status

_LOOKED_AT = 500
"""Tenants of a priority, and rung jobs, that a partition is asked about: what a scrape may cost the
store. Where more tenants wait, those whose turn is next are counted."""

_ENDS: tuple[Status, ...] = ("completed", "failed", "cancelled")
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class JobMetrics:
    """The metrics of one api, relay or worker process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count in `registry`."""
        self.registry = registry
        self._accepted = Counter(
            "gateway_jobs_accepted",
            "Jobs that were kept, by type; a replayed request keeps none.",
            ["type"],
            registry=registry,
        )
        self._refused = Counter(
            "gateway_jobs_refused",
            "Submissions that were refused, by the code of the problem.",
            ["code"],
            registry=registry,
        )
        self._responses = Counter(
            "gateway_http_responses",
            "Answers that were begun, by method and status.",
            ["method", "status"],
            registry=registry,
        )
        self._attempts = Histogram(
            "gateway_job_attempt_seconds",
            "Attempts at jobs, by type and what became of the job.",
            ["type", "outcome"],
            buckets=LONG,
            registry=registry,
        )
        self._denied = denied_destinations(registry).labels("job")
        self._claims_lost = Counter(
            "gateway_job_claims_lost",
            "Claims that were lost to others while their handlers ran.",
            registry=registry,
        )

    def offer(self, job_types: Iterable[str]) -> None:
        """Count the jobs of these types from 0 on, so that the first of each is a rise."""
        for each in job_types:
            self._accepted.labels(each)

    def accepted(self, job_type: str) -> None:
        """Count a job that is kept now."""
        self._accepted.labels(job_type).inc()

    def refused(self, code: str) -> None:
        """Count a submission that a problem of this code refused."""
        self._refused.labels(code).inc()

    def answered(self, method: str, status: int) -> None:
        """Count an answer."""
        self._responses.labels(method if method in _METHODS else "other", str(status)).inc()

    def attempted(self, job_type: str, outcome: str, seconds: float) -> None:
        """Count an attempt at a job of a type that took `seconds`.

        Args:
            job_type: one that is offered.
            outcome: `completed`, `failed` or `cancelled` when the job ended; `retried`, `released`
                when it waits again; `lost` when it is somebody else's.
            seconds: from its claim.
        """
        self._attempts.labels(job_type, outcome).observe(max(0.0, seconds))

    def denied(self) -> None:
        """Count an attempt that wanted to call what may not be dialled."""
        self._denied.inc()

    def claim_lost(self) -> None:
        """Count a claim that was lost."""
        self._claims_lost.inc()

    def show_workers(self, threads: Callable[[], float]) -> None:
        """Show how many threads the live workers have, as `threads` says whenever it is asked."""
        Gauge(
            "gateway_worker_threads",
            "Threads of the workers that the relay has heard of lately.",
            registry=self.registry,
        ).set_function(threads)


def job_numbers(
    registry: CollectorRegistry,
    store: Store,
    partitions: int,
    clock: Clock,
    job_types: Sequence[str] = (),
) -> StoreNumbers:
    """Return the numbers of jobs that live in `store`, registered.

    Args:
        registry: of the process.
        store: the durable store.
        partitions: that it has.
        clock: measures.
        job_types: that are on offer: what ended of them counts from 0 on.
    """

    async def read() -> Sequence[Metric]:
        script = load_script("gateway", "job_numbers")
        replies = await store.run_all(
            [Call(script, partition_prefix(each), (_LOOKED_AT,)) for each in range(partitions)]
        )
        return _families(replies, job_types)

    return StoreNumbers(registry, read, clock)


def _families(replies: Sequence[Any], job_types: Iterable[str]) -> list[Metric]:
    """Return what the script `job_numbers` counted, all partitions together."""
    waiting: Tally[str] = Tally()
    oldest: Tally[str] = Tally()
    jobs: Tally[str] = Tally()
    counters: Tally[str] = Tally(
        {f"ended:{status}:{each}": 0 for each in job_types for status in _ENDS}
    )
    rung = failed = lag = 0
    for by_priority, told, late, dead, counts, stats in replies:
        for priority, (number, age) in zip(get_args(Priority), by_priority, strict=True):
            waiting[priority] += number
            oldest[priority] = max(oldest[priority], age)
        jobs.update(_numbers(counts))
        counters.update(_numbers(stats))
        rung, failed, lag = rung + told, failed + dead, max(lag, late)
    return [
        _labelled("gateway_jobs", "Jobs that are kept, by status.", "status", _statuses(jobs)),
        _labelled(
            "gateway_job_queue_depth",
            "Jobs that wait for a worker, by priority; of 500 tenants of a partition at the most.",
            "priority",
            {priority: waiting[priority] for priority in get_args(Priority)},
        ),
        _labelled(
            "gateway_job_queue_oldest_age_seconds",
            "How long the oldest of them waits, by priority; 0 without any.",
            "priority",
            {priority: oldest[priority] / SECOND for priority in get_args(Priority)},
        ),
        GaugeMetricFamily(
            "gateway_jobs_rung", "Jobs that workers were told of and none has claimed.", rung
        ),
        GaugeMetricFamily(
            "gateway_job_due_lag_seconds",
            "How late the first job is that waits for an instant.",
            lag / SECOND,
        ),
        GaugeMetricFamily("gateway_job_dead_letters", "Failed jobs that are kept.", failed),
        _ended(counters),
        CounterMetricFamily(
            "gateway_job_leases_lost", "Leases of jobs that ran out.", counters["lost"]
        ),
    ]


def _numbers(flat: list[bytes]) -> dict[str, int]:
    return {name: int(value) for name, value in pairs(flat).items()}


def _statuses(jobs: Tally[str]) -> dict[str, int]:
    return {status: jobs[status] for status in get_args(Status)}


def _labelled(name: str, text: str, label: str, values: dict[str, Any]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _ended(counters: Tally[str]) -> Metric:
    family = CounterMetricFamily(
        "gateway_jobs_ended", "Jobs that ended, by type and status.", labels=["type", "status"]
    )
    for name in sorted(counters):
        kind, _, rest = name.partition(":")
        if kind == "ended":
            status, _, job_type = rest.partition(":")
            family.add_metric([job_type, status], counters[name])
    return family
