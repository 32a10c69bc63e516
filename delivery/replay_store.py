"""Replays' transitions, one method each; the scripts in `lua/` demand the states.

Every method may be called again after `StoreUnavailable` with the same arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice
from typing import Any, Literal, cast

from config.clock import SECOND, StoreClock
from config.ids import partition_of
from config.scripts import Argument, Call, load_script, pairs, partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION, Retention
from delivery.replay_records import decode_part, decode_replay, encode_definition
from delivery.replay_steps import Batch
from delivery.replays import Action, Definition, Part, Replay, ReplayState

LIFE = 30 * 86_400 * SECOND
"""How long a replay that ended is kept, µs."""

KEPT = 200
"""How many replays of a tenant each partition keeps; the oldest that ended make room."""

Advanced = Literal["done", "before", "elsewhere"]
"""What came of moving a place: `before`, when the very same move was made already; `elsewhere`,
when the replay is not where it was thought to be, and nothing changed."""

ADVANCED: Mapping[int, Advanced] = {1: "done", 2: "before", 0: "elsewhere"}
"""What scripts that move a place reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A replay in the hands of a process.

    Attributes:
        holder: the token that settling it needs.
    """

    replay: Replay
    holder: str


class ReplayStore:
    """The replays of all partitions."""

    def __init__(
        self,
        store: Store,
        partitions: int,
        clock: StoreClock,
        retention: Retention = DEFAULT_RETENTION,
    ) -> None:
        self._store = store
        self.partitions = partitions
        self._clock = clock
        self._retention = retention

    async def create(
        self,
        replay_id: str,
        tenant: str,
        kind: str,
        definition: Definition,
        *,
        to_url: bytes = b"",
        named: Sequence[str] = (),
    ) -> Replay | None:
        """Make a replay, unless it exists; None when too many of the tenant's run.

        Args:
            replay_id: fresh; its partition keeps it.
            tenant: whose dead letters it is about.
            kind: of dead letters.
            definition: what is asked for.
            to_url: sealed for the row `replay_id`.
            named: those that are asked for by name.
        """
        ordered = sorted(named, key=partition_of)
        await self._store.run_all(
            [
                self._call("name_letters", partition, replay_id, *group)
                for partition, group in groupby(ordered, key=partition_of)
            ]
        )
        made, *hash_ = await self._run(
            "create_replay",
            partition_of(replay_id),
            replay_id,
            tenant,
            kind,
            encode_definition(definition),
            to_url,
            KEPT,
        )
        return decode_replay(replay_id, pairs(hash_[0])) if made else None

    async def read(self, replay_id: str) -> Replay | None:
        """Return the replay, or None when there is none of that identifier."""
        kept = await self._run("read_replay", partition_of(replay_id), replay_id)
        return decode_replay(replay_id, pairs(kept)) if kept else None

    async def list_replays(self, tenant: str, limit: int) -> list[Replay]:
        """Return the tenant's replays, newest first."""
        replies = await self._everywhere("list_replays", tenant, limit)
        parts = (
            [decode_replay(row[0].decode(), pairs(row[1])) for row in reply] for reply in replies
        )
        newest = merge(*parts, key=lambda each: (each.created_at, each.id), reverse=True)
        return list(islice(newest, limit))

    async def progress(self, replay_id: str) -> dict[int, Part]:
        """Return how far the replay has come in each partition."""
        replies = await self._everywhere("read_progress", replay_id)
        return {
            partition: decode_part(pairs(flat), failures)
            for partition, (flat, failures) in enumerate(replies)
        }

    async def cancel(self, replay_id: str) -> ReplayState | None:
        """Have a running replay end; return the state it is in now, None when unknown."""
        state = await self._run("cancel_replay", partition_of(replay_id), replay_id, LIFE)
        return cast("ReplayState", state.decode()) if state else None

    async def resume(self, replay_id: str, token: str) -> bool | None:
        """Have a replay that was cancelled or stopped go on; None when unknown.

        Args:
            replay_id: the replay.
            token: of the wish; the same one again changes nothing.

        Returns:
            Whether it runs; a completed one cannot.
        """
        result = await self._run("resume_replay", partition_of(replay_id), replay_id, token)
        return None if result is None else bool(result)

    # For those who run them

    async def take(
        self, kind: str, holder: str, *, lease: int, partitions: Iterable[int]
    ) -> tuple[list[Taken], dict[int, int | None]]:
        """Take a replay that is due from each of `partitions`, for `lease` µs.

        Returns:
            Those taken, and in how many µs each partition has another that is due; None when it
            has none.
        """
        asked = list(partitions)
        replies = await self._store.run_all(
            [self._call("take_replay", partition, kind, holder, lease) for partition in asked]
        )
        taken: list[Taken] = []
        due: dict[int, int | None] = {}
        for partition, (now, head, replay_id, flat) in zip(asked, replies, strict=True):
            self._clock.heard(now)
            due[partition] = None if head < 0 else max(0, int(head) - now)
            if replay_id:
                replay = decode_replay(replay_id.decode(), pairs(flat))
                taken.append(Taken(replay=replay, holder=holder))
        return taken, due

    async def settle(
        self,
        taken: Taken,
        state: ReplayState,
        *,
        base: tuple[int, int],
        reason: str = "",
        wait: int = 0,
        spent: int = 0,
    ) -> bool:
        """Say how a step went and give the replay back; False when it is not the holder's any more.

        Args:
            taken: the replay.
            state: it goes on, or how it ended.
            base: what its brake begins to count from.
            reason: why it is stopped.
            wait: µs until the next step at the least.
            spent: µs of its rate that the step has used.
        """
        return bool(
            await self._run(
                "settle_replay",
                partition_of(taken.replay.id),
                taken.replay.id,
                taken.holder,
                state,
                reason,
                wait,
                spent,
                *base,
                LIFE,
            )
        )

    async def advance(self, replay_id: str, partition: int, batch: Batch) -> Advanced:
        """Move the replay's place beyond a batch that needs nothing more."""
        result = await self._run("advance_replay", partition, *_around(replay_id, batch))
        return ADVANCED[result]

    async def plan(self, replay_id: str, partition: int, batch: Batch) -> Batch | None:
        """Note that a batch is about to be run; return the one that holds, None for elsewhere."""
        plan = await self._run("plan_replay", partition, replay_id, *batch.place, batch.encode())
        return Batch.decode(plan) if plan else None

    async def move(
        self,
        replay_id: str,
        partition: int,
        batch: Batch,
        *,
        action: Action,
        tenant: str,
        died_before: int,
        to: tuple[str, str] = ("", ""),
        urls: Mapping[str, bytes] | None = None,
    ) -> tuple[Advanced, dict[str, str]]:
        """Replay or purge the deliveries of a batch, and move the replay's place beyond it.

        Args:
            replay_id: the replay.
            partition: of all of them.
            batch: the deliveries.
            action: what becomes of them.
            tenant: whose they must be.
            died_before: µs; those that died later are left alone.
            to: the endpoint that they go to from now on, and the hash of the URL there.
            urls: that URL, sealed for each of them.

        Returns:
            Whether it was done, and if it was done now the state that each was in, or why it was
            left alone.
        """
        reply = await self._run(
            "replay",
            partition,
            *_around(replay_id, batch),
            action,
            tenant,
            died_before,
            *to,
            self._retention.ends,
            *(part for each in batch.chosen for part in (each, (urls or {}).get(each, b""))),
        )
        states = (state.decode() for state in reply[1])
        return ADVANCED[reply[0]], dict(zip(batch.chosen, states, strict=False))

    def _call(self, name: str, partition: int, *args: Argument) -> Call:
        return Call(load_script("delivery", name), partition_prefix(partition), args)

    async def _run(self, name: str, partition: int, *args: Argument) -> Any:
        return await self._store.run(self._call(name, partition, *args))

    async def _everywhere(self, name: str, *args: Argument) -> list[Any]:
        return await self._store.run_all(
            [self._call(name, partition, *args) for partition in range(self.partitions)]
        )


def _around(replay_id: str, batch: Batch) -> tuple[Argument, ...]:
    """Return what scripts that move a replay's place are called with first."""
    return (replay_id, *batch.place, *batch.to, int(batch.done), json.dumps(batch.counts))
