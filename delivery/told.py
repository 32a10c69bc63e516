"""What scripts keep in lists until a delivery process has told it elsewhere; see `lua/told.lua`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from config.errors import StoreError
from config.ids import random_float
from config.scripts import Call, load_script, partition_prefix
from config.store import Store
from delivery.errors import TooManyEndpoints

_log = logging.getLogger("delivery.told")

AT_ONCE: Final = 100
"""How much of a list is read in one round."""

_OFTEN: Final = 1.0


class Told:
    """The lists of one name, of all partitions."""

    def __init__(
        self, store: Store, partitions: int, name: Literal["operator:notices", "mirrors:news"]
    ) -> None:
        self._store = store
        self._partitions = partitions
        self._name = name

    async def move(self, tell: Callable[[list[bytes]], Awaitable[None]]) -> int:
        """Have the oldest of each partition told, then forget it there.

        Args:
            tell: called with what a partition has, if anything; with the same again if it fails.

        Returns:
            The most that a partition had.

        Raises:
            StoreError: what was not told is told later; `tell` may have raised it as well.
        """
        replies = await self._store.run_all(
            [self._call("read_told", each, AT_ONCE) for each in range(self._partitions)]
        )
        for partition, kept in enumerate(replies):
            if kept:
                await tell(kept)
                await self._store.run(self._call("drop_told", partition, *kept))
        return max(map(len, replies))

    def _call(self, script: str, partition: int, *args: int | bytes) -> Call:
        return Call(
            load_script("delivery", script), partition_prefix(partition), (self._name, *args)
        )


async def tell_for_ever(move: Callable[[], Awaitable[int]], what: str) -> None:
    """Call `move` for ever, about once a second and at once while it has `AT_ONCE` to tell.

    Args:
        move: what `Told.move` returns.
        what: it moves, for the log.
    """
    while True:
        try:
            while await move() >= AT_ONCE:
                pass
        except (StoreError, TooManyEndpoints) as error:
            _log.warning("delivery.telling_waits", extra={"what": what, "error": str(error)})
        await asyncio.sleep(_OFTEN * (0.9 + 0.2 * random_float()))
