"""Replays: dead letters that are sent again, run again or purged together, as one piece of work.

A replay is `running -> completed | cancelled | stopped`, and from the last two back to `running`.
`running`: the process that takes it moves one batch after another. `completed`: there is nothing
beyond the place it has come to; what it sent may still be under way. `cancelled`: a person wanted
no more of it. `stopped`: too much of what it sent was not taken (its reason says `failure_rate`),
or its other URL cannot be used any more (`destination_not_allowed`, `too_many_endpoints`,
`unreadable`).

What a replay is about is fixed when it is made: what died before that instant and matches, or was
named. It goes through each partition's dead letters in their order, one partition after another. A
batch is moved by the script that moves its place, so that none is moved twice and none is missed,
however often a process dies of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from delivery.letters import START, Filter, Place

Action = Literal["replay", "purge"]
ReplayState = Literal["running", "completed", "cancelled", "stopped"]
StopReason = Literal["failure_rate", "destination_not_allowed", "too_many_endpoints", "unreadable"]
MAX_NAMED = 10_000
"""How many dead letters a replay may be asked for by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What was asked for; it never changes.

    Attributes:
        action: what becomes of them.
        filter: which ones; None when they were named.
        named: how many were named.
        rate: how many a second at the most; None for no limit.
        most: how many at the most; None for all.
        dry_run: count them, move none.
        brake: stop when this share of first attempts was not taken; None for never.
        total: how many dead letters there were to look at when it was made.
        by: who asked, for the record.
    """

    action: Action = "replay"
    filter: Filter | None = None
    named: int = 0
    rate: float | None = None
    most: int | None = None
    dry_run: bool = False
    brake: float | None = None
    total: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A replay as the store has it. Instants are µs.

    Attributes:
        kind: of dead letters: `delivery`, or what others call theirs.
        to_url: where they go instead, sealed for the row `id`; empty for where they went.
        reason: why it is stopped.
        died_before: what died later is no part of it.
        base: what the brake begins to count from, attempted and failed; None before the first step.
        paced_at: its rate allows nothing more before that.
    """

    id: str
    tenant: str
    kind: str
    definition: Definition
    to_url: bytes
    state: ReplayState
    reason: str | None
    created_at: int
    updated_at: int
    died_before: int
    base: tuple[int, int] | None
    paced_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something replayed that was not taken: at its first attempt, or for good.

    Attributes:
        outcome: of the first attempt.
        status: of the answer to it.
        reason: why it is dead again.
    """

    id: str
    at: int
    outcome: str | None
    status: int | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How far a replay has come in one partition.

    Attributes:
        place: what it has come to.
        done: there is nothing beyond.
        plan: a batch that somebody began to run and did not bring to its end.
        counts: see `lua/progress.lua`.
        failures: the last ones, newest first.
    """

    place: Place = START
    done: bool = False
    plan: bytes | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a replay has done so far, over all partitions.

    Attributes:
        looked: dead letters it has looked at.
        matched: those that were meant.
        moved: those that were replayed or purged.
        attempted: replayed ones whose first attempt is over.
        delivered: replayed ones that were taken.
        dead: replayed ones that died again.
        erased: replayed ones that were erased, with their job, before anything came of them.
        skipped: those that were named, or meant a moment before, and left alone; by why.
        reasons: those that matched, by why they were dead.
        failures: the last ones, newest first.
    """

    looked: int
    matched: int
    moved: int
    attempted: int
    delivered: int
    dead: int
    erased: int
    skipped: Mapping[str, int]
    reasons: Mapping[str, int]
    failures: tuple[Failure, ...]

    @property
    def failed(self) -> int:
        """Replayed ones that were attempted and not taken so far."""
        return self.attempted - self.delivered - self.erased

    @property
    def pending(self) -> int:
        """Replayed ones of which nothing has come so far, good or bad."""
        return self.moved - self.delivered - self.dead - self.erased


def total(parts: Iterable[Part]) -> Progress:
    """Return what `parts` come to together."""
    counts: Counter[str] = Counter()
    failures: list[Failure] = []
    for part in parts:
        counts.update(part.counts)
        failures += part.failures
    return Progress(
        looked=counts["looked"],
        matched=counts["matched"],
        moved=counts["replayed"] + counts["purged"],
        attempted=counts["attempted"],
        delivered=counts["delivered"],
        dead=counts["dead"],
        erased=counts["erased"],
        skipped=_named("skip:", counts),
        reasons=_named("reason:", counts),
        failures=tuple(_told_once(failures)),
    )


def _told_once(failures: Iterable[Failure]) -> list[Failure]:
    """Return one failure for each that failed, newest first: its first attempt, and its death."""
    found: dict[str, Failure] = {}
    for each in sorted(failures, key=lambda failure: failure.at, reverse=True):
        last = found.setdefault(each.id, each)
        found[each.id] = replace(
            last,
            outcome=last.outcome or each.outcome,
            status=last.status or each.status,
            reason=last.reason or each.reason,
        )
    return list(found.values())


def _named(prefix: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {
        name.removeprefix(prefix): count
        for name, count in sorted(counts.items())
        if name.startswith(prefix)
    }
