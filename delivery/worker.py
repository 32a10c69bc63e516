"""The delivery process: claim, attempt, record, for as long as it runs.

Three loops share one event loop. The claimer takes what is due as slots come free; the recorder
writes what is over, all that has gathered meanwhile in one round trip; the listener wakes the
claimer when a script says that something is due. Nothing depends on a wake-up: every partition is
claimed from once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any

from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from config.clock import SECOND, StoreClock
from config.errors import StoreError, StoreUnavailable
from config.ids import random_float, random_text
from config.log import about
from config.scripts import partition_prefix
from config.store import Store
from config.tasks import background, cancel_all
from delivery.attempt import Rules, Sends, attempt, faulted, interrupted
from delivery.metrics import DeliveryMetrics
from delivery.models import Attempted, Batch, Claimed
from delivery.slots import Shares, Slots
from delivery.store import DeliveryStore, Wanted

_log = logging.getLogger("delivery.worker")

SWEEP = 1.0
"""Seconds between claims from a partition that nothing is known to be due in."""

_GATHER = 0.002
"""Seconds to let slots come free before the next claim, so that one round trip fetches several."""

_ENOUGH = 64
"""Free slots for which a claim is worth its round trip, without waiting for more."""

_RECORD_AT_MOST = 256
_RECORD_PATIENCE = 600.0
"""Seconds that a result waits for the store; after that the delivery is attempted again."""

_PER_TURN = 8

_REPLAYS_AT_ONCE = 32
"""Replayed ones in one claim: what is live and comes next waits until those are under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a delivery process works.

    Attributes:
        concurrency: attempts at once.
        lease: seconds until a claimed delivery counts as lost; longer than any attempt takes.
        attempt_limit: seconds that one attempt takes at the very most.
        grace: seconds that a stopping process lets its attempts go on.
    """

    concurrency: int
    lease: float
    attempt_limit: float
    grace: float = 10.0


class DeliveryWorker:
    """One delivery process."""

    def __init__(
        self,
        *,
        store: Store,
        deliveries: DeliveryStore,
        sender: Sends,
        rules: Rules,
        clock: StoreClock,
        pace: Pace,
        metrics: DeliveryMetrics,
        beat: Callable[[str], None] = lambda _loop: None,
    ) -> None:
        """Begin nothing yet; `beat` is told of each turn of the loop that claims."""
        self._store = store
        self._deliveries = deliveries
        self._sender = sender
        self._rules = rules
        self._clock = clock
        self._pace = pace
        self._metrics = metrics
        self._beat = beat
        self._process = f"dp-{random_text(12)}"
        self._slots = Slots(Shares.of(pace.concurrency))
        metrics.show_slots(lambda: len(self._slots), pace.concurrency)
        self._sequences = dict.fromkeys(range(deliveries.partitions), 1)
        self._due = dict.fromkeys(range(deliveries.partitions), 0.0)
        self._backlog = False
        self._has_freed = False
        self._wake = asyncio.Event()
        self._enough = max(1, min(_ENOUGH, pace.concurrency // 4))
        self._gathering: asyncio.TimerHandle | None = None
        self._over: asyncio.Queue[Attempted] = asyncio.Queue()  # see `_room`
        self._unrecorded = 0
        self._attempts: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is under way is over or handed back."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Deliver until `stop` is called."""
        loops: list[Coroutine[Any, Any, None]] = [self._listen(), self._record_all()]
        beside = background(loops, self.stop)
        try:
            _log.info("delivery.started", extra={"worker": self._process})
            await self._claim_all()
            await self._wind_down()
        finally:
            await cancel_all(beside)
            _log.info("delivery.stopped", extra={"worker": self._process})

    async def _claim_all(self) -> None:
        while not self._stopping.is_set():
            self._beat("claim")
            # Cleared before the claim: what becomes due during it wakes the next round.
            self._wake.clear()
            try:
                wait = await self._claim_round()
            except StoreError as error:
                _log.warning("delivery.store_unavailable", extra={"error": str(error)})
                wait = 0.2 + 0.3 * random_float()
            if wait > 0:
                await self._sleep(wait)

    async def _claim_round(self) -> float:
        """Claim from the partitions that are due; return the seconds to sleep."""
        asked_at = self._clock.monotonic()
        wanted = self._wanted(asked_at)
        if wanted:
            # A wake-up that comes while the reply is under way must outlast it.
            self._due |= dict.fromkeys(wanted, inf)
            self._has_freed = False
            try:
                batches = await self._deliveries.claim(wanted)
            except StoreError:
                self._due |= dict.fromkeys(wanted, asked_at)
                raise
            for partition, batch in batches.items():
                self._sequences[partition] += 1
                self._plan(partition, batch, full=len(batch.deliveries) >= wanted[partition].limit)
                self._start(batch, asked_at)
            if self._has_freed:
                # What came free while the reply was under way is not what it was asked for.
                self._freed()
        return self._until_next()

    def _wanted(self, now: float) -> dict[int, Wanted]:
        due = [partition for partition, at in self._due.items() if at <= now]
        if not due:
            return {}
        # Whoever comes first in a round gets what is left over; the order turns so that it is not
        # always one.
        turn = self._sequences[due[0]] % len(due)
        room = self._at_once()
        share, rest = divmod(room, len(due))
        unproven, odd = divmod(self._slots.free_for_unproven, len(due))
        replays, over = divmod(min(room, self._slots.free_for_replays, _REPLAYS_AT_ONCE), len(due))
        held = self._slots.unproven_held(len(due))
        return {
            partition: self._want(
                partition,
                share + (place < rest),
                unproven=unproven + (place < odd),
                held=held,
                replays=replays + (place < over),
                first=place == 0,
            )
            for place, partition in enumerate(due[turn:] + due[:turn])
        }

    def _want(
        self,
        partition: int,
        limit: int,
        *,
        unproven: int,
        held: Mapping[str, float],
        replays: int,
        first: bool,
    ) -> Wanted:
        slots = self._slots
        return Wanted(
            process=self._process,
            sequence=self._sequences[partition],
            limit=limit,
            lease=int(self._pace.lease * SECOND),
            unproven=unproven,
            replays=min(limit, replays),
            suspect=first and slots.may_take_suspect,
            per_turn=_PER_TURN,
            per_endpoint=slots.shares.per_endpoint,
            per_tenant=slots.shares.per_tenant,
            endpoints=slots.endpoints_left(limit),
            tenants=slots.tenants_left(limit),
            unproven_held=held,
        )

    def _plan(self, partition: int, batch: Batch, *, full: bool) -> None:
        """Say when to claim from `partition` again."""
        now = self._clock.monotonic()
        self._clock.heard(batch.now)
        if full:
            self._backlog = True
            self._due[partition] = now
            return
        if batch.more:
            self._backlog = True
        wait = SWEEP * (0.9 + 0.2 * random_float())
        if batch.next_at is not None:
            wait = min(wait, max(0.0, (batch.next_at - batch.now) / SECOND))
            # What is due and yet was not given is at some share's limit: look again, but not at
            # once.
            wait = max(wait, 0.01)
        self._due[partition] = min(self._due[partition], now + wait)

    def _start(self, batch: Batch, asked_at: float) -> None:
        # The lease runs from before the request was sent, as far as its holder can tell.
        start_by = asked_at + self._pace.lease - self._pace.attempt_limit
        if self._clock.monotonic() > start_by:
            _log.warning("delivery.claim_too_late", extra={"count": len(batch.deliveries)})
            return
        for claimed in batch.deliveries:
            self._slots.fill(claimed)
            task = asyncio.create_task(self._attempt(claimed))
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)

    def _until_next(self) -> float:
        room = self._room()
        if room <= 0:
            self._backlog = True
            return SWEEP
        wait = min(self._due.values()) - self._clock.monotonic()
        if self._backlog and wait <= 0 and room < self._enough:
            return _GATHER
        return wait

    def _at_once(self) -> int:
        """Return how many to claim now: half of what there is room for, unless that is little.

        What is claimed first is attempted while the store hands out the rest.
        """
        room = self._room()
        return min(room, max(self._enough, room // 2))

    def _room(self) -> int:
        """Return how many more may be claimed: the free slots, unless as many results wait."""
        return 0 if self._unrecorded >= self._pace.concurrency else max(0, self._slots.free)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _attempt(self, claimed: Claimed) -> None:
        with about(delivery=claimed.id, tags=claimed.tags):
            over = await self._become(claimed)
        self._metrics.attempted(claimed, over, self._clock.now())
        # The slot is for the attempt. While its result waits to be recorded, others are under way.
        self._slots.empty(claimed.id, claimed.claim)
        self._unrecorded += 1
        self._over.put_nowait(over)
        self._freed()

    async def _become(self, claimed: Claimed) -> Attempted:
        """Return what becomes of an attempt, whatever happens to it."""
        try:
            return await attempt(claimed, sender=self._sender, rules=self._rules, clock=self._clock)
        except asyncio.CancelledError:
            return interrupted(claimed, self._clock.now())
        except Exception:  # noqa: BLE001
            # A fault of ours, which uses up the budget all the same, or it would go on for ever.
            _log.exception("delivery.attempt_failed")
            return faulted(claimed, self._clock.now(), self._rules)

    async def _record_all(self) -> None:
        while True:
            over = [await self._over.get()]
            while len(over) < _RECORD_AT_MOST and not self._over.empty():
                over.append(self._over.get_nowait())
            try:
                await self._record(over)
            finally:
                self._unrecorded -= len(over)
                for _ in over:
                    self._over.task_done()
                self._freed()

    async def _record(self, over: list[Attempted]) -> None:
        """Record, however long the store is away: until it is swept again, the claims hold."""
        patience = AsyncRetrying(
            stop=stop_after_delay(_RECORD_PATIENCE),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            retry=retry_if_exception_type(StoreUnavailable),
        )
        try:
            stale: list[str] = await patience(self._deliveries.record, over)
        except (RetryError, StoreError) as error:
            _log.error("delivery.not_recorded", extra={"count": len(over), "error": str(error)})
            return
        for delivery_id in stale:
            self._metrics.claim_lost()
            _log.warning("delivery.claim_lost", extra={"delivery": delivery_id})

    def _freed(self) -> None:
        """Slots came free: claim again if there was more than they could take."""
        self._has_freed = True
        if not self._backlog:
            return
        if self._room() >= self._enough:
            self._claim_again()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(_GATHER, self._claim_again)

    def _claim_again(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._backlog = False
        now = self._clock.monotonic()
        for partition in self._due:
            self._due[partition] = min(self._due[partition], now)
        self._wake.set()

    async def _listen(self) -> None:
        channels = {
            f"{partition_prefix(partition)}wake:delivery": partition for partition in self._due
        }

        async def mark(channel: str) -> None:
            self._mark_due(channels[channel])

        await self._store.listen(channels, mark)

    def _mark_due(self, partition: int) -> None:
        self._due[partition] = self._clock.monotonic()
        self._wake.set()

    async def _wind_down(self) -> None:
        """Let attempts end, hand back those that do not, and record all of it."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=self._pace.grace)
        for task in list(self._attempts):
            task.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        try:
            await asyncio.wait_for(self._over.join(), self._pace.grace)
        except TimeoutError:
            _log.error("delivery.not_recorded", extra={"count": self._over.qsize()})
