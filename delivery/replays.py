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

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from config.clock import SECOND
from delivery.letters import START, Filter, Letter, Place, matches

Action = Literal["replay", "purge"]
ReplayState = Literal["running", "completed", "cancelled", "stopped"]
StopReason = Literal["failure_rate", "destination_not_allowed", "too_many_endpoints", "unreadable"]

MAX_NAMED = 10_000
"""How many dead letters a replay may be asked for by name."""

BATCH = 100
"""How many dead letters are looked at in one step."""

BITE = 10
"""How many of them are moved at a time. While a script moves them the store does nothing else, and
what they lead to, a claim, attempts and their record, comes in one burst of that size."""

PACE = 0.007
"""Seconds from one bite to the next at the least. A process that replays all it can has no time for
live traffic; one that rests has."""

WINDOW = 2_000
"""How many replayed deliveries may wait for their first attempt before more are moved."""

BRAKED_WINDOW = 100
"""The same where the replay has a brake, which could not hold back what is moved already."""

STALLED = 10.0
"""Seconds after which a full window is let through although none of it was attempted: one endpoint
that takes nothing must not hold up those of all others."""

SAMPLE = 20
"""First attempts that the brake judges by at the least."""

_BURST = 0.5
"""Seconds' worth of its rate that a replay moves at once at the most."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Move up to `limit` of those beyond the place that `partition` has come to."""

    partition: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Bring the batch that was planned in `partition` to its end."""

    partition: int
    plan: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Too many wait for their first attempt: look again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """There is nothing left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """It must not go on."""

    reason: StopReason


Step = Move | Finish | Wait | Complete | Stop


def next_step(
    replay: Replay, parts: Mapping[int, Part], *, batch: int, tracked: bool, stalled: bool
) -> Step:
    """Return what a running replay is to do next.

    Args:
        replay: as it was taken.
        parts: of all partitions, in their order.
        batch: how many are moved at a time at the most.
        tracked: whether what comes of those that were moved is counted.
        stalled: whether nothing came of them for a while.
    """
    wanted, progress = replay.definition, total(parts.values())
    if _is_braked(replay, progress):
        return Stop(reason="failure_rate")
    planned = next(((at, part.plan) for at, part in parts.items() if part.plan), None)
    if planned is not None:
        return Finish(partition=planned[0], plan=planned[1])
    partition = next((at for at, part in parts.items() if not part.done), None)
    count = progress.matched if wanted.dry_run else progress.moved
    left = batch if wanted.most is None else wanted.most - count
    if partition is None or left <= 0:
        return Complete()
    room = _room(wanted, progress) if tracked else batch
    if room <= 0 and not stalled:
        return Wait()
    return Move(
        partition=partition,
        limit=min(batch, left, room if room > 0 else BRAKED_WINDOW, _at_once(wanted)),
    )


def _room(wanted: Definition, progress: Progress) -> int:
    """Return how many more may wait for their first attempt."""
    if wanted.dry_run or wanted.action == "purge":
        return BATCH
    window = WINDOW if wanted.brake is None else BRAKED_WINDOW
    return window - (progress.moved - progress.attempted)


def _at_once(wanted: Definition) -> int:
    if wanted.rate is None or wanted.dry_run:
        return BATCH
    return max(1, int(wanted.rate * _BURST))


def _is_braked(replay: Replay, progress: Progress) -> bool:
    if replay.definition.brake is None or replay.base is None:
        return False
    attempted = progress.attempted - replay.base[0]
    failed = progress.failed - replay.base[1]
    return attempted >= SAMPLE and failed >= replay.definition.brake * attempted


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a replay comes by on its way.

    Attributes:
        place: where it stands; of one that was named, its identifier alone counts.
        letter: what filters look at; None for what is not known.
        why: it is left alone; None when nothing speaks against it.
    """

    place: Place
    letter: Letter | None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Dead letters that a replay takes together, and the places around them.

    Attributes:
        place: it is at.
        to: it comes to.
        done: nothing is beyond.
        chosen: those that are meant.
        counts: what is counted besides those that are moved.
    """

    place: Place
    to: Place
    done: bool
    chosen: tuple[str, ...]
    counts: Mapping[str, int]

    def encode(self) -> str:
        """Return it as a plan that the store keeps."""
        kept = [*self.place, *self.to, self.done, self.chosen, self.counts]
        return json.dumps(kept, separators=(",", ":"))

    @classmethod
    def decode(cls, plan: bytes) -> Batch:
        """Return what `encode` kept."""
        died, place_id, to_died, to_id, done, chosen, counts = json.loads(plan)
        return cls(
            place=(died, place_id),
            to=(to_died, to_id),
            done=done,
            chosen=tuple(chosen),
            counts=counts,
        )


def choose(
    replay: Replay, place: Place, found: Sequence[Candidate], reached: Place | None, limit: int
) -> Batch:
    """Return the batch that a replay at `place` takes of what was found beyond it.

    Args:
        replay: says which ones are meant.
        place: it is at.
        found: what comes next, in order.
        reached: the last place looked at; None when nothing is beyond.
        limit: at most how many are chosen.
    """
    wanted = replay.definition.filter
    chosen: list[str] = []
    counts: Counter[str] = Counter()
    to = place
    for each in found:
        if len(chosen) >= limit:
            return _batch(place, to, chosen, counts, done=False)
        letter = each.letter
        is_late = letter is not None and letter.died_at >= replay.died_before
        if wanted is not None and is_late:
            # In their order, so are all that follow.
            return _batch(place, to, chosen, counts, done=True)
        to = each.place
        counts["looked"] += 1
        why = each.why or ("died_later" if is_late else None)
        if why is not None or letter is None:
            counts[f"skip:{why}"] += 1
        elif wanted is None or matches(wanted, letter):
            chosen.append(letter.id)
            counts.update(("matched", f"reason:{letter.reason}"))
    return _batch(place, reached or to, chosen, counts, done=reached is None)


def bites(
    replay: Replay, place: Place, found: Sequence[Candidate], reached: Place | None, limit: int
) -> list[Batch]:
    """Return the same as `choose`, in batches that are small enough to be moved at once."""
    if replay.definition.dry_run:
        return [choose(replay, place, found, reached, limit)]
    taken: list[Batch] = []
    while True:
        batch = choose(replay, place, found, reached, min(BITE, limit))
        taken.append(batch)
        place, found = batch.to, found[batch.counts.get("looked", 0) :]
        limit -= len(batch.chosen)
        if batch.done or not found or limit <= 0:
            return taken


def _batch(
    place: Place, to: Place, chosen: Sequence[str], counts: Mapping[str, int], *, done: bool
) -> Batch:
    return Batch(place=place, to=to, done=done, chosen=tuple(chosen), counts=dict(counts))


def cost(wanted: Definition, moved: int) -> int:
    """Return the µs that `moved` of them use up of the rate."""
    if wanted.rate is None or wanted.dry_run:
        return 0
    return int(moved / wanted.rate * SECOND)


def rest(took: float) -> float:
    """Return the seconds to rest after a bite that was moved in `took` seconds.

    The longer the store takes, the more of its time others want.
    """
    return max(PACE - took, took)


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


def encode_definition(wanted: Definition) -> str:
    """Return the JSON that the store keeps."""
    chosen = wanted.filter
    kept: dict[str, Any] = {
        "action": wanted.action,
        "named": wanted.named,
        "rate": wanted.rate,
        "most": wanted.most,
        "dryRun": wanted.dry_run,
        "brake": wanted.brake,
        "total": wanted.total,
        "by": wanted.by,
    }
    if chosen is not None:
        kept["filter"] = {
            "reason": chosen.reason,
            "endpoint": chosen.endpoint,
            "tags": dict(chosen.tags),
            "diedAfter": chosen.died_after,
            "diedBefore": chosen.died_before,
        }
    return json.dumps(kept)


def decode_replay(replay_id: str, kept: Mapping[str, bytes]) -> Replay:
    """Return the replay that the hash fields `kept` describe."""
    base = None
    if "baseAttempted" in kept:
        base = int(kept["baseAttempted"]), int(kept["baseFailed"])
    return Replay(
        id=replay_id,
        tenant=kept["tenant"].decode(),
        kind=kept["kind"].decode(),
        definition=_decode_definition(json.loads(kept["definition"])),
        to_url=kept.get("toUrl", b""),
        state=cast("ReplayState", kept["state"].decode()),
        reason=kept.get("reason", b"").decode() or None,
        created_at=int(kept["createdAt"]),
        updated_at=int(kept["updatedAt"]),
        died_before=int(kept["diedBefore"]),
        base=base,
        paced_at=int(kept.get("pacedAt", 0)),
    )


def _decode_definition(kept: Mapping[str, Any]) -> Definition:
    chosen = kept.get("filter")
    return Definition(
        action=kept["action"],
        filter=None
        if chosen is None
        else Filter(
            reason=chosen["reason"],
            endpoint=chosen["endpoint"],
            tags=chosen["tags"],
            died_after=chosen["diedAfter"],
            died_before=chosen["diedBefore"],
        ),
        named=kept["named"],
        rate=kept["rate"],
        most=kept["most"],
        dry_run=kept["dryRun"],
        brake=kept["brake"],
        total=kept["total"],
        by=kept["by"],
    )


_PLACES = {"died", "id", "done", "plan"}


def decode_part(kept: Mapping[str, bytes], failures: Iterable[bytes]) -> Part:
    """Return the part that the hash fields `kept` describe, with its last `failures`."""
    return Part(
        place=(int(kept.get("died", 0)), kept.get("id", b"").decode()),
        done=kept.get("done") == b"1",
        plan=kept.get("plan"),
        counts={name: int(value) for name, value in kept.items() if name not in _PLACES},
        failures=tuple(_decode_failure(json.loads(each)) for each in failures),
    )


def _decode_failure(kept: Mapping[str, Any]) -> Failure:
    return Failure(
        id=kept["id"],
        at=int(kept["at"]),
        outcome=kept.get("outcome"),
        status=kept.get("status"),
        reason=kept.get("reason"),
    )
