"""The transitions of jobs in any order and any of them twice, against a model of what must hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from config.clock import SECOND, StoreClock, SystemClock
from config.ids import derived_id, new_id
from config.store import connect
from delivery.egress import Policy, parse_destination
from delivery.endpoints import Registration, register, url_hash
from delivery.models import Message
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore
from gateway.models import TERMINAL, Callback, Job, Priority, Status, Tombstone, View
from gateway.outbox import Outbox, Overdue
from gateway.store import JobStore
from gateway.work import Changed, End, Ended, Lost, Report, WorkStore
from tests.conftest import RunningStores

HOUR = 3600 * SECOND
AGES_AGO = 1
"""A score in the past of every instant: what waits for it is due."""

PARTITIONS = 2
TENANTS = ("acme", "bulk")
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
STATUSES: tuple[Status, ...] = ("pending", "processing", "completed", "failed", "cancelled")
PROCESSES = ("wp-1", "wp-2")
ENDS: tuple[Status, ...] = ("completed", "failed", "cancelled")
SUSPECT_AFTER = 2
POISON_AFTER = 5
RING = KeyRing({"k1": bytes(32)})
DESTINATION = parse_destination("https://receiver.example/hook", Policy())

T = TypeVar("T")


@dataclass(slots=True)
class Kept:
    """What must be true of one job.

    Attributes:
        place: `ob`, `rung`, `later`, `leases`, or empty when it has ended.
        is_due: whether the instant that its place waits for has passed.
        has_deadline: whether it must have begun by an instant.
        is_late: whether that instant has passed.
        ended_by: who ended it.
        message: the delivery that its end owes.
        beginning: the delivery that told that it has begun.
        has_leftovers: whether an attempt that came to nothing may have left files.
    """

    job: Job
    registration: Registration | None
    place: str
    status: Status = "pending"
    attempt: int = 0
    claim: str = ""
    is_due: bool = False
    has_deadline: bool = False
    is_late: bool = False
    cancel_requested: bool = False
    lost: int = 0
    released: str = ""
    reaped: str = ""
    ended_by: str = ""
    message: str = ""
    beginning: str = ""
    retried_as: str = ""
    has_leftovers: bool = False
    is_buried: bool = False
    rev: int = 0
    claims: list[str] = field(default_factory=list)

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    def wait_again(self, place: str) -> None:
        self.has_leftovers |= self.status == "processing"
        self.status, self.place, self.claim, self.is_due = "pending", place, "", False

    def places(self) -> set[str]:
        """Return every index that the job must be in, and no other."""
        if self.is_buried:
            return set()
        found = {self.place} if self.place else {"expiry"}
        if self.has_deadline:
            found.add("deadlines")
        if self.status == "failed" and not self.retried_as:
            found.add("failed")
        return found


Picks = st.integers(0, 10_000)


class JobMachine(RuleBasedStateMachine):
    """Every transition, chosen at random, on a handful of jobs."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = connect(self.url, max_connections=4, socket_timeout=5)
        deliveries = DeliveryStore(self.store, PARTITIONS)
        scripts = (self.store, PARTITIONS, StoreClock(SystemClock()), deliveries.retention)
        self.jobs, self.work, self.outbox = (
            JobStore(*scripts),
            WorkStore(*scripts),
            Outbox(*scripts),
        )
        self.kept: dict[str, Kept] = {}
        self.doomed: set[str] = set()
        self.numbers = iter(range(1_000_000))
        self.do(self.store.client.flushall())

    def teardown(self) -> None:
        self.do(self.store.close())
        self.loop.close()

    def do(self, step: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await step

        return self.loop.run_until_complete(awaited())

    def pick(self, number: int) -> Kept:
        """Return one of the jobs; those that are not over more often than the others."""
        open_ = [kept for kept in self.kept.values() if not kept.is_terminal]
        choice = open_ if open_ and number % 4 else list(self.kept.values())
        return choice[number % len(choice)]

    def claim_of(self, kept: Kept, *, stale: bool) -> str:
        """Return the claim that holds the job, or one that does not."""
        if not stale and kept.claim:
            return kept.claim
        return next((claim for claim in kept.claims if claim != kept.claim), "wp-0:none")

    def twice(self, step: Any, *, repeat: bool) -> Any:
        """Run a transition, and perhaps again; both must say the same."""
        first = self.do(step())
        if repeat:
            again = self.do(step())
            assert _said(again) == _said(first)
        return first

    async def move(self, kept: Kept, index: str, score: int = AGES_AGO) -> None:
        """Let the instant that `index` waits for pass."""
        key = f"{_prefix(kept.job.id)}{index}"
        assert await self.store.client.zadd(key, {kept.job.id: score}, xx=True, ch=True) == 1

    @rule(
        partition=st.integers(0, PARTITIONS - 1),
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from(PRIORITIES),
        later=st.booleans(),
        deadline=st.booleans(),
        callback=st.booleans(),
        attempts=st.sampled_from([1, 2, 3, 8]),
        repeat=st.booleans(),
    )
    @precondition(lambda self: len(self.kept) < 8)
    def submit(
        self,
        partition: int,
        tenant: str,
        priority: Priority,
        later: bool,
        deadline: bool,
        callback: bool,
        attempts: int,
        repeat: bool,
    ) -> None:
        now = SystemClock().now()
        job_id = new_id("job", partition, now)
        # The endpoint belongs to the partition of its jobs.
        registration = _registration(tenant, partition)
        wanted = Callback(
            endpoint=registration.id,
            url=RING.seal(DESTINATION.url.encode(), row=f"callback:{job_id}"),
            url_hash=url_hash(DESTINATION.url),
            events=("job.completed", "job.failed", "job.cancelled"),
        )
        job = Job(
            id=job_id,
            tenant=tenant,
            type="demo.echo",
            status="pending",
            rev=0,
            priority=priority,
            input={},
            max_attempts=attempts,
            timeout=60.0,
            queue_timeout=3600.0 if deadline else None,
            result_ttl=HOUR,
            run_at=now + HOUR if later else None,
            callback=wanted if callback else None,
        )
        given = registration if callback else None
        self.twice(lambda: self.jobs.submit(job, given), repeat=repeat)
        self.kept[job_id] = Kept(
            job=job,
            registration=given,
            place="later" if later else "ob",
            has_deadline=deadline,
        )

    @rule(number=Picks)
    @precondition(lambda self: self.kept)
    def submit_an_old_one_again(self, number: int) -> None:
        kept = self.pick(number)
        if not kept.is_buried:
            self.do(self.jobs.submit(kept.job, kept.registration))

    @rule(window=st.integers(0, 4), overdue=st.booleans())
    def ring(self, window: int, overdue: bool) -> None:
        rung = self.do(
            self.outbox.ring(
                dict.fromkeys(range(PARTITIONS), window),
                again=HOUR,
                again_at_most=HOUR,
                overdue=overdue,
            )
        )
        for partition, said in rung.items():
            here = [each for each in self.kept.values() if _partition(each.job.id) == partition]
            for each in here:
                if each.place == "later" and each.is_due:
                    each.wait_again("ob")
            before = [each for each in here if each.place == "rung"]
            again = [each for each in before if each.is_due and overdue]
            waiting = [each for each in here if each.place == "ob"]
            told = [self.kept[job] for job in said.jobs]
            fresh = [each for each in told if each not in again]
            assert Counter(said.jobs) == Counter({each.job.id for each in (*again, *fresh)})
            assert all(each in waiting for each in fresh)
            assert len(fresh) == min(len(waiting), max(0, window - len(before)))
            for each in told:
                each.place, each.is_due = "rung", False
            assert said.rung == len(before) + len(fresh)
            assert said.waiting == (len(waiting) > len(fresh))

    @rule(number=Picks)
    @precondition(lambda self: self.kept)
    def time_comes(self, number: int) -> None:
        """What waits to be rung again, or for its next attempt, or is leased, falls due."""
        kept = self.pick(number)
        if kept.place in {"rung", "later", "leases"} and not kept.is_due:
            self.do(self.move(kept, kept.place))
            kept.is_due = True

    @rule(number=Picks)
    @precondition(lambda self: self.kept)
    def deadline_comes(self, number: int) -> None:
        kept = self.pick(number)
        if kept.has_deadline and not kept.is_late:
            self.do(self.move(kept, "deadlines"))
            kept.is_late = True

    @rule(
        number=Picks,
        process=st.sampled_from(PROCESSES),
        suspect=st.booleans(),
        repeat=st.booleans(),
    )
    @precondition(lambda self: self.kept)
    def claim(self, number: int, process: str, suspect: bool, repeat: bool) -> None:
        kept = self.pick(number)
        claim = f"{process}:{next(self.numbers)}"
        view = self.twice(
            lambda: self.work.claim(kept.job.id, claim, lease=HOUR, suspect=suspect), repeat=repeat
        )
        may = kept.status == "pending" and kept.place != "later" and not kept.is_buried
        if not may or (kept.lost >= SUSPECT_AFTER and not suspect):
            assert view is None
            return
        assert view is not None
        self.note_claim(kept, claim)

    def note_claim(self, kept: Kept, claim: str) -> None:
        kept.status, kept.place, kept.claim = "processing", "leases", claim
        kept.attempt += 1
        kept.is_due = kept.has_deadline = kept.is_late = False
        kept.claims.append(claim)

    @rule(number=Picks, outdated=st.booleans(), repeat=st.booleans())
    @precondition(lambda self: any(kept.registration for kept in self.kept.values()))
    def tell_of_the_beginning(self, number: int, outdated: bool, repeat: bool) -> None:
        kept = self.pick(number)
        if kept.registration is None:
            return
        message = _message(kept.job, "job.started")
        rev = kept.rev - outdated
        done = self.twice(
            lambda: self.outbox.notify(kept.job.id, rev, message, "beginning"), repeat=repeat
        )
        if kept.is_buried:
            assert not done
        elif kept.beginning:
            assert done
        else:
            assert done != outdated
            kept.beginning = "" if outdated else message.id

    @rule(number=Picks, stale=st.booleans(), percent=st.integers(0, 100), repeat=st.booleans())
    @precondition(lambda self: self.kept)
    def progress(self, number: int, stale: bool, percent: int, repeat: bool) -> None:
        kept = self.pick(number)
        claim = self.claim_of(kept, stale=stale)
        report = Report(job_id=kept.job.id, claim=claim, percent=percent, message="Half")
        [said] = self.twice(lambda: self.work.progress([report]), repeat=repeat)
        if kept.status == "processing" and kept.claim == claim:
            assert said is not None
            assert said.cancel_requested == kept.cancel_requested
        else:
            assert said is None

    @rule(number=Picks, stale=st.booleans(), repeat=st.booleans())
    @precondition(lambda self: self.kept)
    def renew(self, number: int, stale: bool, repeat: bool) -> None:
        kept = self.pick(number)
        claim = self.claim_of(kept, stale=stale)
        pair = {_partition(kept.job.id): [(kept.job.id, claim)]}
        said = self.twice(lambda: self.work.renew(pair, lease=HOUR), repeat=repeat)[claim]
        if kept.status == "processing" and kept.claim == claim:
            assert said == ("cancel_requested" if kept.cancel_requested else "held")
            kept.is_due = False
        else:
            assert said == "lost"

    @rule(
        number=Picks,
        status=st.sampled_from(ENDS),
        stale=st.booleans(),
        outdated=st.booleans(),
        repeat=st.booleans(),
    )
    @precondition(lambda self: self.kept)
    def finish(
        self, number: int, status: Status, stale: bool, outdated: bool, repeat: bool
    ) -> None:
        """By the worker that holds it, by one that lost it, or without a claim while it waits."""
        kept = self.pick(number)
        claim = "" if kept.status == "pending" and not stale else self.claim_of(kept, stale=stale)
        by = claim or f"api:{next(self.numbers)}"
        self.end(kept, status, claim=claim, by=by, outdated=outdated, repeat=repeat)

    def end(
        self,
        kept: Kept,
        status: Status,
        *,
        claim: str,
        by: str,
        rev: int | None = None,
        outdated: bool = False,
        repeat: bool = False,
    ) -> None:
        rev = (kept.rev if rev is None else rev) - outdated
        message = _owed(kept.job, status) if kept.registration else None
        now = SystemClock().now()
        end = End(
            claim=claim,
            by=by,
            rev=rev,
            status=status,
            completed_at=now,
            expires_at=now + HOUR,
            message=message,
            results={} if status == "completed" else None,
        )
        result = self.twice(lambda: self.work.finish(kept.job.id, end), repeat=repeat)
        if kept.is_terminal and kept.ended_by == by and not kept.is_buried:
            assert isinstance(result, Ended)
        elif kept.is_terminal or kept.claim != claim:
            assert isinstance(result, Lost)
        elif outdated:
            assert isinstance(result, Changed)
        else:
            assert isinstance(result, Ended)
            kept.has_leftovers |= kept.status == "processing" and status != "completed"
            kept.status, kept.place, kept.claim, kept.ended_by = status, "", "", by
            kept.has_deadline = False
            kept.message = message.id if message else ""

    @rule(number=Picks, stale=st.booleans(), repeat=st.booleans())
    @precondition(lambda self: self.kept)
    def retry(self, number: int, stale: bool, repeat: bool) -> None:
        kept = self.pick(number)
        claim = self.claim_of(kept, stale=stale)
        said = self.twice(
            lambda: self.work.retry(kept.job.id, claim, delay=HOUR, attempt_record="{}"),
            repeat=repeat,
        )
        if kept.released == claim and not kept.is_buried:
            assert said == "waiting"
        elif kept.claim != claim:
            assert said == "lost"
        elif kept.cancel_requested:
            assert said == "cancel_requested"
        else:
            assert said == "waiting"
            kept.wait_again("later")
            kept.released, kept.lost = claim, 0

    @rule(number=Picks, stale=st.booleans(), repeat=st.booleans())
    @precondition(lambda self: self.kept)
    def release(self, number: int, stale: bool, repeat: bool) -> None:
        kept = self.pick(number)
        claim = self.claim_of(kept, stale=stale)
        said = self.twice(
            lambda: self.work.release(kept.job.id, claim, attempt_record="{}"), repeat=repeat
        )
        if kept.released == claim and not kept.is_buried:
            assert said == "waiting"
        elif kept.claim != claim:
            assert said == "lost"
        elif kept.cancel_requested:
            assert said == "cancel_requested"
        else:
            assert said == "waiting"
            kept.wait_again("ob")
            kept.released = claim
            kept.attempt -= 1

    @rule(number=Picks, repeat=st.booleans())
    @precondition(lambda self: self.kept)
    def cancel(self, number: int, repeat: bool) -> None:
        kept = self.pick(number)
        said = self.twice(lambda: self.jobs.cancel(kept.job.id), repeat=repeat)
        if kept.is_buried:
            assert said is None
            return
        status, view = said
        assert status == kept.status
        if status == "processing":
            kept.cancel_requested = True
            assert view.job.cancel_requested
        elif status == "pending":
            self.end(kept, "cancelled", claim="", by=f"api:{next(self.numbers)}")

    @rule(live=st.sets(st.sampled_from(PROCESSES)), is_followed_up=st.booleans())
    @precondition(lambda self: self.kept)
    def sweep(self, live: set[str], is_followed_up: bool) -> None:
        """Bring back what lapsed; a relay that dies then leaves the rest to the next sweep."""
        back, overdue = self.do(self.outbox.sweep(sorted(live), lease=HOUR, at_most=100))
        expected_back = 0
        expected: dict[str, str] = {}
        for kept in self.kept.values():
            if kept.has_deadline and kept.is_late:
                expected[kept.job.id] = "queue_timeout"
            if kept.place != "leases" or not kept.is_due:
                continue
            if kept.reaped != kept.claim:
                kept.reaped = kept.claim
                kept.lost += kept.claim.partition(":")[0] not in live
            if kept.lost >= POISON_AFTER:
                expected[kept.job.id] = "poison"
            elif kept.attempt >= kept.job.max_attempts or kept.cancel_requested:
                expected[kept.job.id] = "orphaned"
            else:
                expected_back += 1
                kept.wait_again("ob")
        assert {each.view.job.id: each.reason for each in overdue} == expected
        assert back == expected_back
        if is_followed_up:
            self.end_all(overdue)

    def end_all(self, overdue: list[Overdue]) -> None:
        for each in overdue:
            kept = self.kept[each.view.job.id]
            claim = each.view.job.claim or ""
            assert claim == kept.claim
            status: Status = "cancelled" if kept.cancel_requested else "failed"
            self.end(kept, status, claim=claim, by=f"{each.reason}:{claim}", rev=each.view.job.rev)

    @rule(number=Picks, times=st.integers(1, POISON_AFTER), is_followed_up=st.booleans())
    @precondition(lambda self: self.kept)
    def processes_die_of_it(self, number: int, times: int, is_followed_up: bool) -> None:
        """One process after the other takes the job and is never heard of again."""
        kept = self.pick(number)
        for _ in range(times):
            if kept.status != "pending" or kept.place == "later":
                return
            claim = f"wp-1:{next(self.numbers)}"
            assert self.do(self.work.claim(kept.job.id, claim, lease=HOUR)) is not None
            self.note_claim(kept, claim)
            self.do(self.move(kept, "leases"))
            kept.is_due = True
            self.sweep(live={"wp-2"}, is_followed_up=is_followed_up)

    @rule(number=Picks)
    @precondition(lambda self: self.kept)
    def results_expire(self, number: int) -> None:
        """What is past its time becomes a tombstone, unless its callback is still under way."""
        kept = self.pick(number)
        if not kept.is_terminal or kept.is_buried:
            return
        self.do(self.expire_now(kept))
        life: Any = {"tombstone_life": HOUR, "after_callback": HOUR, "at_most": 100}
        if not kept.message:
            self.bury(kept)
        for _ in range(2):
            more, doomed = self.do(self.outbox.expire(**life))
            assert (more, set(doomed)) == (False, self.doomed)

    def bury(self, kept: Kept, *, is_erased: bool = False) -> None:
        kept.is_buried, kept.message = True, ""
        if is_erased:
            kept.beginning = ""
        if kept.has_leftovers:
            self.doomed.add(kept.job.id)

    async def expire_now(self, kept: Kept) -> None:
        await self.move(kept, "expiry")
        key = f"{_prefix(kept.job.id)}j:{kept.job.id}"
        await self.store.client.hset(key, "expiresAt", str(AGES_AGO))

    @rule(number=Picks, repeat=st.booleans())
    @precondition(lambda self: self.kept)
    def reserve_retry(self, number: int, repeat: bool) -> None:
        kept = self.pick(number)
        wanted = new_id("job", _partition(kept.job.id), SystemClock().now())
        said = self.twice(lambda: self.jobs.reserve_retry(kept.job.id, wanted), repeat=repeat)
        if kept.is_buried:
            assert said is None
            return
        if kept.status in {"failed", "cancelled"}:
            kept.retried_as = kept.retried_as or wanted
        assert said == (kept.status, kept.retried_as)

    @rule(number=Picks)
    @precondition(lambda self: self.kept)
    def erase(self, number: int) -> None:
        kept = self.pick(number)
        said = self.do(self.jobs.erase(kept.job.id, tombstone_life=HOUR))
        assert said == (None if kept.is_buried else kept.status)
        if kept.is_terminal and not kept.is_buried:
            self.bury(kept, is_erased=True)

    @rule(number=Picks)
    @precondition(lambda self: self.doomed)
    def files_are_deleted(self, number: int) -> None:
        job_id = sorted(self.doomed)[number % len(self.doomed)]
        self.do(self.outbox.forget_files(job_id))
        self.doomed.remove(job_id)

    @invariant()
    def every_job_is_as_it_must_be(self) -> None:
        for kept in self.kept.values():
            found = self.do(self.jobs.read(kept.job.id))
            if kept.is_buried:
                assert isinstance(found, Tombstone)
                assert (found.status, found.tenant) == (kept.status, kept.job.tenant)
                continue
            assert isinstance(found, View)
            job = found.job
            assert (job.status, job.attempt, job.claim or "", job.cancel_requested) == (
                kept.status,
                kept.attempt,
                kept.claim,
                kept.cancel_requested,
            )
            assert (job.retried_as or "", job.lost if not job.is_terminal else 0) == (
                kept.retried_as,
                kept.lost if not kept.is_terminal else 0,
            )
            # A cancel under way is a job that is worked on, and nothing else.
            assert not (job.status == "pending" and job.cancel_requested)
            assert job.rev >= kept.rev
            kept.rev = job.rev

    @invariant()
    def every_index_holds_what_it_must(self) -> None:
        for partition in range(PARTITIONS):
            here = [each for each in self.kept.values() if _partition(each.job.id) == partition]
            there = [each for each in here if not each.is_buried]
            indexes = self.do(self.indexes(partition))
            assert indexes == _indexes_of(there)

    async def indexes(self, partition: int) -> dict[str, set[str]]:
        names = [
            *("rung", "later", "leases", "expiry", "failed", "deadlines"),
            *(f"ob:{priority}" for priority in PRIORITIES),
            *(f"ob:{priority}:{tenant}" for priority in PRIORITIES for tenant in TENANTS),
            *(f"jobs:{tenant}" for tenant in TENANTS),
            *(f"jobs:{tenant}:{status}" for tenant in TENANTS for status in STATUSES),
        ]
        prefix = f"gw:{{p{partition:02d}}}:"
        async with self.store.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zrange(f"{prefix}{name}", 0, -1)
            pipe.hgetall(f"{prefix}counts")
            *members, counts = await pipe.execute()
        found = {
            name: {member.decode() for member in each}
            for name, each in zip(names, members, strict=True)
            if each
        }
        number = {status.decode(): int(count) for status, count in counts.items()}
        assert number == {
            status: sum(len(found.get(f"jobs:{tenant}:{status}", ())) for tenant in TENANTS)
            for status in number
        }
        return found

    @invariant()
    def every_end_owes_one_callback(self) -> None:
        owed = {kept.message for kept in self.kept.values() if kept.message}
        owed |= {kept.beginning for kept in self.kept.values() if kept.beginning}
        found = set()
        for partition in range(PARTITIONS):
            pattern = f"gw:{{p{partition:02d}}}:d:*"
            keys: list[Any] = self.do(self.store.client.keys(pattern))
            found |= {key.decode().split(":")[3] for key in keys}
        assert found == owed


def _prefix(job_id: str) -> str:
    return f"gw:{{p{_partition(job_id):02d}}}:"


def _partition(identifier: str) -> int:
    return int(identifier.split("_")[1][:2])


def _registration(tenant: str, partition: int) -> Registration:
    """Return the endpoint of the one destination, in whichever partition is asked for."""
    registered = register(tenant, DESTINATION, RING, PARTITIONS)
    return Registration(
        id=derived_id("ep", partition, tenant),
        tenant=tenant,
        origin=registered.origin,
        secret=registered.secret,
    )


def _owed(job: Job, status: Status) -> Message:
    return _message(job, f"job.{status}")


def _message(job: Job, event: str) -> Message:
    assert job.callback is not None
    identifier = derived_id("msg", _partition(job.id), job.id, event)
    return Message(
        id=identifier,
        endpoint=job.callback.endpoint,
        tenant=job.tenant,
        url=RING.seal(DESTINATION.url.encode(), row=identifier),
        url_hash=job.callback.url_hash,
        body=b"{}",
    )


def _indexes_of(jobs: list[Kept]) -> dict[str, set[str]]:
    """Return which job must be in which index, in the order of the names."""
    indexes: dict[str, set[str]] = {}

    def note(name: str, member: str) -> None:
        indexes.setdefault(name, set()).add(member)

    for kept in jobs:
        job_id, tenant, priority = kept.job.id, kept.job.tenant, kept.job.priority
        note(f"jobs:{tenant}", job_id)
        note(f"jobs:{tenant}:{kept.status}", job_id)
        for place in kept.places():
            note(f"ob:{priority}:{tenant}" if place == "ob" else place, job_id)
            if place == "ob":
                note(f"ob:{priority}", tenant)
    return indexes


def _said(reply: Any) -> Any:
    """Return what two answers must agree in: not the instants at which they were given."""
    match reply:
        case View(job=job) | Ended(view=View(job=job)) | Changed(view=View(job=job)):
            return type(reply).__name__, job
        case (status, View(job=job)):
            return status, job
        case _:
            return reply


@pytest.mark.timeout(400)  # making a failure small takes a while
def test_jobs_keep_to_their_states(stores: RunningStores) -> None:
    class Machine(JobMachine):
        url = stores.durable_url

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
