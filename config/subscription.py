"""Listening to channels of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator

from redis.asyncio.client import PubSub

from config.errors import StoreUnavailable, translated

_LISTEN = 30.0
"""Seconds that one read of a subscription waits."""


class Subscription:
    """Channels listened to over one connection; iterating gives the channel of each message."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    async def add(self, *channels: str) -> None:
        """Listen to more channels.

        Raises:
            StoreUnavailable: the connection is gone.
        """
        with translated("SUBSCRIBE"):
            await self._pubsub.subscribe(*channels)

    async def drop(self, *channels: str) -> None:
        """Listen to these channels no longer.

        Raises:
            StoreUnavailable: the connection is gone.
        """
        with translated("UNSUBSCRIBE"):
            await self._pubsub.unsubscribe(*channels)

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the channel of each message, for ever."""
        silent = 0
        while True:
            with translated("SUBSCRIBE"):
                message = await self._pubsub.get_message(timeout=_LISTEN)
                if message is None:
                    # Nothing may have happened, or the connection is gone and nobody said so.
                    silent += 1
                    if silent > 1:
                        raise StoreUnavailable("SUBSCRIBE: the store fell silent")
                    await self._pubsub.ping()
                    continue
            silent = 0
            if message["type"] in {"subscribe", "message"}:
                yield message["channel"].decode()
