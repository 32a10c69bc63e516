"""Whether a process lives, and whether it is ready: what its admin port answers.

It lives while its loops turn. It is ready while its work goes on and the durable store takes
writes; how much work waits is a metric and never makes it unready, nor does a store at its memory
limit, since what was taken in must still be worked off and answered for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Literal

from config.clock import Clock
from config.errors import StoreError
from config.scripts import META_PREFIX, Call, load_script
from config.store import Store

STALLED_SECONDS: Final = 60.0
"""A loop has stalled that has not turned for this long and for what the store may take besides."""

_PROBE_SECONDS: Final = 2.0
_KNOWN_FOR: Final = 1.0
"""Seconds that a verdict on the store holds: whoever asks more often costs it no more writes."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a process is not ready.

    Attributes:
        code: for programs.
        detail: a sentence for operators.
    """

    code: Literal["starting", "draining", "store_unavailable"]
    detail: str


class Health:
    """The health of one process. Not thread-safe: it belongs to one event loop.

    Attributes:
        patience: seconds that a loop may take for a turn.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        """Begin as a process that is starting, with its durable store and what measures."""
        self._store = store
        self._clock = clock
        # A turn may wait for the store a few times.
        self.patience = STALLED_SECONDS + 3 * store.deadline
        self._phase: Reason | None = Reason("starting", "the process has not begun its work")
        self._turned: dict[str, float] = {}
        self._probe: asyncio.Task[Reason | None] | None = None
        self._probed_at = 0.0

    def begin(self) -> None:
        """Note that the work has begun."""
        self._phase = None

    def drain(self) -> None:
        """Note that no more work is taken; what is under way goes on."""
        self._phase = Reason("draining", "the process was told to stop")

    def beat(self, loop: str) -> None:
        """Note that `loop` turned; from its first turn on, it is expected to go on."""
        self._turned[loop] = self._clock.monotonic()

    def stalled(self) -> list[str]:
        """Return the loops that turn no more: none while the process lives."""
        oldest = self._clock.monotonic() - self.patience
        return sorted(loop for loop, turned in self._turned.items() if turned < oldest)

    async def reasons(self) -> list[Reason]:
        """Return why the process is not ready: nothing when it is."""
        store = await self._store_reason()
        return [reason for reason in (self._phase, store) if reason is not None]

    async def _store_reason(self) -> Reason | None:
        """Ask the store once for all who ask at a time, and at most once a second."""
        now = self._clock.monotonic()
        if self._probe is None or (self._probe.done() and now - self._probed_at >= _KNOWN_FOR):
            self._probe = asyncio.create_task(self._write())
            self._probed_at = now
        return await asyncio.shield(self._probe)

    async def _write(self) -> Reason | None:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._store.run(Call(load_script("config", "probe"), META_PREFIX, ()))
        except TimeoutError:
            return Reason("store_unavailable", f"no answer within {_PROBE_SECONDS:g} seconds")
        except StoreError as error:
            return Reason("store_unavailable", str(error))
        return None
