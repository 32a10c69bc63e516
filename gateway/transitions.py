"""What the gateway's stores share: scripts by partition, and jobs read from their replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from config.clock import StoreClock
from config.scripts import META_PREFIX, Argument, Call, load_script, pairs, partition_prefix
from config.store import Store
from delivery.bounds import Retention
from gateway.models import CallbackState, View, decode_fields


class Transitions:
    """Runs the scripts of jobs in the partitions of one store."""

    def __init__(
        self, store: Store, partitions: int, clock: StoreClock, retention: Retention
    ) -> None:
        """Run scripts in `store`.

        Args:
            store: the durable store.
            partitions: how many it has.
            clock: hears the store's time in every reply that tells it.
            retention: of the deliveries that jobs owe.
        """
        self._store = store
        self.partitions = partitions
        self._clock = clock
        self._retention = retention

    def _view(self, job_id: str, reply: list[Any]) -> View:
        now, flat, delivery, *usual = reply
        self._clock.heard(now)
        kept = pairs(flat)
        job = decode_fields(job_id, kept)
        state = _callback_state(delivery) if job.callback else None
        known = int(usual[0]) if usual and usual[0] else None
        return View(job=job, callback=state, now=now, usual=known)

    def _call(self, name: str, partition: int, *args: Argument) -> Call:
        return Call(load_script("gateway", name), partition_prefix(partition), args)

    def _meta_call(self, name: str, *args: Argument) -> Call:
        return Call(load_script("gateway", name), META_PREFIX, args)

    async def _run(self, name: str, partition: int, *args: Argument) -> Any:
        return await self._store.run(self._call(name, partition, *args))

    async def _everywhere(self, name: str, *args: Argument) -> list[Any]:
        return await self._store.run_all(
            [self._call(name, partition, *args) for partition in range(self.partitions)]
        )


def _callback_state(delivery: Sequence[bytes | None]) -> CallbackState:
    if not delivery or delivery[0] is None:
        return CallbackState()
    state, reason, attempts, last_status, next_at = delivery
    status = "disabled" if reason == b"disabled" else state.decode() if state else "pending"
    return CallbackState(
        status=cast('Literal["pending", "delivered", "dead", "disabled"]', status),
        attempts=int(attempts or 0),
        last_status_code=int(last_status) if last_status else None,
        next_attempt_at=int(next_at) if next_at and state == b"pending" else None,
    )
