"""What a replay does next, and which dead letters it takes: decisions, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config.clock import SECOND
from delivery.letters import Letter, Place, matches
from delivery.replays import Definition, Part, Progress, Replay, StopReason, total

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
