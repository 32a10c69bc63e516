"""What delivery counts: attempts as they are made, and what its store holds."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from config.clock import SECOND, Clock
from config.metrics import LONG, SHORT, StoreNumbers
from config.store import Call, Store, load_script, pairs, partition_prefix
from delivery.bounds import Cause, Kind
from delivery.models import Attempted, Claimed, Deliver, Reason

_DENIED = "destination_not_allowed"


class DeliveryMetrics:
    """The metrics of one delivery process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count in `registry`."""
        self._attempts = Counter(
            "gateway_delivery_attempts",
            "Attempts that are over, by outcome and the class of the answer's status.",
            ["outcome", "status_class"],
            registry=registry,
        )
        self._seconds = Histogram(
            "gateway_delivery_attempt_seconds",
            "From the beginning of an attempt to its outcome.",
            buckets=(*SHORT, 15.0, 20.0),
            registry=registry,
        )
        self._end_to_end = Histogram(
            "gateway_delivery_end_to_end_seconds",
            "From the moment a delivery was owed, or replayed, to the answer that took it.",
            buckets=LONG,
            registry=registry,
        )
        self._denied = Counter(
            "gateway_delivery_denied",
            "Attempts at a destination that may not be dialled; nothing was sent.",
            registry=registry,
        )
        self._claims_lost = Counter(
            "gateway_delivery_claims_lost",
            "Attempts whose record came after their lease.",
            registry=registry,
        )
        self._in_flight = Gauge(
            "gateway_delivery_in_flight", "Attempts under way.", registry=registry
        )
        self._slots = Gauge(
            "gateway_delivery_slots", "Attempts that may be under way at once.", registry=registry
        )
        # Labels are looked up once for each pair there is: some ten outcomes, five classes.
        self._by_outcome: dict[tuple[str, int], Counter] = {}

    def show_slots(self, in_flight: Callable[[], float], slots: int) -> None:
        """Show how many slots are filled, as `in_flight` says whenever it is asked."""
        self._in_flight.set_function(in_flight)
        self._slots.set(slots)

    def attempted(self, claimed: Claimed, over: Attempted, now: int) -> None:
        """Count an attempt that is over at `now`, µs of the store's time."""
        key = over.outcome, (over.status or 0) // 100
        counter = self._by_outcome.get(key)
        if counter is None:
            counter = self._by_outcome[key] = self._attempts.labels(
                key[0], f"{key[1]}xx" if key[1] else "none"
            )
        counter.inc()
        if over.took is not None:
            self._seconds.observe(over.took / SECOND)
        if over.outcome == _DENIED:
            self._denied.inc()
        # What a person asked for may have been owed long ago.
        if isinstance(over.decision.verdict, Deliver) and claimed.trigger in {"schedule", "replay"}:
            self._end_to_end.observe(max(0, now - claimed.born_at) / SECOND)

    def claim_lost(self) -> None:
        """Count a record that came too late."""
        self._claims_lost.inc()


def delivery_numbers(
    registry: CollectorRegistry, store: Store, partitions: int, clock: Clock
) -> StoreNumbers:
    """Return the numbers of deliveries that live in `store`, registered."""

    async def read() -> Sequence[Metric]:
        script = load_script("delivery", "numbers")
        replies = await store.run_all(
            [Call(script, partition_prefix(partition), ()) for partition in range(partitions)]
        )
        return _families(replies)

    return StoreNumbers(registry, read, clock)


def _families(replies: Sequence[Any]) -> list[Metric]:
    """Return what the script `numbers` counted, all partitions together."""
    sums: Tally[str] = Tally()
    counters: Tally[str] = Tally()
    processes = lag = 0
    for *sizes, alive, late, flat in replies:
        sums.update(dict(zip(_SIZES, sizes, strict=True)))
        counters.update({name: int(value) for name, value in pairs(flat).items()})
        # Each process claims from every partition.
        processes, lag = max(processes, alive), max(lag, late)
    endpoints = GaugeMetricFamily(
        "gateway_delivery_endpoints",
        "Endpoints with something to do: now, or at an instant.",
        labels=["place"],
    )
    for place in ("proven", "unproven", "agenda"):
        endpoints.add_metric([place], sums[place])
    dead = CounterMetricFamily(
        "gateway_delivery_dead", "Deliveries that died, by reason.", labels=["reason"]
    )
    # From 0 on, so that the first of its kind is a rise.
    for reason in get_args(Reason):
        dead.add_metric([reason], counters[f"dead:{reason}"])
    retired = CounterMetricFamily(
        "gateway_delivery_retired",
        "Ended deliveries of which nothing is kept, by kind and the bound that was passed.",
        labels=["kind", "cause"],
    )
    for kind, cause in product(get_args(Kind), get_args(Cause)):
        retired.add_metric([kind, cause], counters[f"retired:{kind}:{cause}"])
    return [
        endpoints,
        dead,
        retired,
        _gauge("due_lag_seconds", "How long the endpoint waits whose turn is next.", lag / SECOND),
        _gauge("processes", "Processes that were heard of in the last ten seconds.", processes),
        _gauge("breakers_open", "Endpoints whose breaker is open.", sums["breakers"]),
        _gauge(
            "suspects",
            "Endpoints that deliveries wait for which processes died of.",
            sums["suspects"],
        ),
        _gauge("dead_letters", "Dead deliveries that are kept.", sums["dead"]),
        CounterMetricFamily(
            "gateway_delivery_leases_lost", "Leases that ran out.", counters["lost"]
        ),
        GaugeMetricFamily(
            "gateway_operator_notices", "Notices to the operator that wait.", sums["notices"]
        ),
        CounterMetricFamily(
            "gateway_operator_notices_dropped",
            "Notices to the operator that there was no room for.",
            counters["dropped"],
        ),
    ]


_SIZES = ("proven", "unproven", "agenda", "breakers", "suspects", "dead", "notices")


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gateway_delivery_{name}", text, value)
