"""What delivery counts: attempts as they are made, and what its store holds."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from config.clock import SECOND, Clock
from config.metrics import LONG, SHORT, StoreNumbers
from config.scripts import Argument, Call, load_script, pairs, partition_prefix
from config.store import Store
from delivery.bounds import Cause, Kind
from delivery.models import Attempted, Claimed, Deliver, Reason
from delivery.mover import KIND
from delivery.replays import ReplayState

DENIED: Final = "destination_not_allowed"
"""The code of a request that was denied: an attempt's outcome, a job's error."""

_LOOKED_AT: Final = 10
"""Running replays that are asked how far they are: what a scrape may cost the store."""


def denied_destinations(registry: CollectorRegistry) -> Counter:
    """Return a counter in `registry` of requests to what may not be dialled, by what made them.

    One name for every role: callbacks are attempted by delivery, what jobs ask for by workers.
    """
    return Counter(
        "gateway_destinations_denied",
        "Requests to a destination that may not be dialled, by who made them; nothing was sent.",
        ["kind"],
        registry=registry,
    )


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
        self._denied = denied_destinations(registry).labels("callback")
        self._claims_lost = Counter(
            "gateway_delivery_claims_lost",
            "Attempts whose record came after their lease.",
            registry=registry,
        )
        self._bounds_near = Counter(
            "gateway_delivery_bounds_near",
            "Times that 80 % of a tenant's bound of ended deliveries was seen to be used, by kind;"
            " once a minute for each bound.",
            ["kind"],
            registry=registry,
        )
        for kind in get_args(Kind):
            self._bounds_near.labels(kind)
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
        if over.outcome == DENIED:
            self._denied.inc()
        # What a person asked for may have been owed long ago.
        if isinstance(over.decision.verdict, Deliver) and claimed.trigger in {"schedule", "replay"}:
            self._end_to_end.observe(max(0, now - claimed.born_at) / SECOND)

    def bound_near(self, kind: Kind) -> None:
        """Count a bound that is nearly used up."""
        self._bounds_near.labels(kind).inc()

    def claim_lost(self) -> None:
        """Count a record that came too late."""
        self._claims_lost.inc()


def delivery_numbers(
    registry: CollectorRegistry, store: Store, partitions: int, clock: Clock
) -> StoreNumbers:
    """Return the numbers of deliveries that live in `store`, registered."""

    async def read() -> Sequence[Metric]:
        replies = await everywhere("numbers", _LOOKED_AT)
        totals = _totals(replies)
        looked = await everywhere("read_looked", *totals) if totals else []
        return _families(replies, left=max(0, sum(totals.values()) - sum(looked)))

    async def everywhere(name: str, *args: Argument) -> list[Any]:
        script = load_script("delivery", name)
        return await store.run_all(
            [Call(script, partition_prefix(partition), args) for partition in range(partitions)]
        )

    return StoreNumbers(registry, read, clock)


def _totals(replies: Sequence[Any]) -> dict[str, int]:
    """Return how many dead letters running replays have to look at in all, of a bounded number."""
    named = [replay for *_, kinds in replies for *_, replays in kinds for replay in replays]
    return {replay.decode(): total for replay, total in named[:_LOOKED_AT]}


def _families(replies: Sequence[Any], *, left: int) -> list[Metric]:
    """Return what the script `numbers` counted, all partitions together.

    Args:
        replies: of the partitions.
        left: dead letters that running replays have still to look at.
    """
    sums: Tally[str] = Tally()
    counters: Tally[str] = Tally()
    running: Tally[str] = Tally({KIND: 0})
    processes = lag = 0
    for *sizes, alive, late, flat, kinds in replies:
        sums.update(dict(zip(_SIZES, sizes, strict=True)))
        counters.update({name: int(value) for name, value in pairs(flat).items()})
        running.update({kind.decode(): number for kind, number, _ in kinds})
        # Each process claims from every partition.
        processes, lag = max(processes, alive), max(lag, late)
    endpoints = GaugeMetricFamily(
        "gateway_delivery_endpoints",
        "Endpoints with something to do: now, or at an instant.",
        labels=["place"],
    )
    for place in ("proven", "unproven", "replay", "agenda"):
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
        *_replays(running, counters, left),
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


def _replays(running: Tally[str], counters: Tally[str], left: int) -> list[Metric]:
    """Return how replays get on, and what came of them."""
    run = GaugeMetricFamily(
        "gateway_replays_running", "Replays that run, by kind of dead letters.", labels=["kind"]
    )
    for kind, number in running.items():
        run.add_metric([kind], number)
    ended = CounterMetricFamily(
        "gateway_replays_ended", "Replays that ended, by how.", labels=["status"]
    )
    for state in get_args(ReplayState):
        if state != "running":
            ended.add_metric([state], counters[f"replays:{state}"])
    letters = CounterMetricFamily(
        "gateway_replay_letters",
        "Dead letters of replays: moved, purged, or left alone; and what came of those that were"
        " sent again.",
        labels=["outcome"],
    )
    for outcome in _OUTCOMES:
        letters.add_metric([outcome], counters[f"replay:{outcome}"])
    return [
        run,
        ended,
        letters,
        GaugeMetricFamily(
            "gateway_replay_letters_left",
            f"Dead letters that running replays have still to look at; of {_LOOKED_AT} replays.",
            left,
        ),
    ]


_OUTCOMES = ("replayed", "purged", "skipped", "delivered", "dead", "erased")
_SIZES = ("proven", "unproven", "replay", "agenda", "breakers", "suspects", "dead", "notices")


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gateway_delivery_{name}", text, value)
