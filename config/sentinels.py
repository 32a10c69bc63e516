"""A store behind Sentinel: the servers that know which one is the primary at the moment.

`redis+sentinel://user:password@one:26379,two:26379,three:26379/name`, or `rediss+sentinel://` where
both the store and the Sentinels speak TLS. User, password and what follows a question mark are the
store's; the Sentinels are asked without credentials.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import BlockingConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

_PORT: Final = 26_379


class SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """A bounded pool of connections to whichever server is the primary when each is made."""

    async def get_master_address(self) -> tuple[str, int]:
        """Ask the Sentinels, one after the other."""
        try:
            found: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            # What the driver says names every option of every connection.
            reason = f"no Sentinel names a primary of {self.service_name}"
            raise MasterNotFoundError(reason) from None
        return found

    async def aclose(self) -> None:
        """Close every connection, those to the Sentinels too."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def sentinel_pool(url: str, *, socket_timeout: float, **options: Any) -> SentinelPool:
    """Return the pool for `url`.

    Args:
        url: as `store.url` may be.
        socket_timeout: seconds until a silent server counts as gone, and all Sentinels together.
        options: of the pool and of its connections.
    """
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    places = [urlsplit(f"//{each}") for each in hosts.split(",")]
    name = unquote(parts.path.removeprefix("/"))
    scheme = parts.scheme.partition("+")[0]
    store = dict(parse_url(f"{scheme}://{user}{at}store?{parts.query}"))
    is_secret = store.pop("connection_class", None) is not None
    del store["host"]
    encrypted = {each: value for each, value in store.items() if each.startswith("ssl_")}
    each_timeout = socket_timeout / len(places)
    asked: dict[str, Any] = {
        "socket_timeout": each_timeout,
        "socket_connect_timeout": each_timeout,
        # One that does not answer is not asked again: the next one is.
        "retry": Retry(NoBackoff(), retries=0),
        "ssl": is_secret,
        **encrypted,
    }
    hosts_and_ports = [(place.hostname, place.port or _PORT) for place in places]
    sentinel = Sentinel(hosts_and_ports, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    kind = SentinelManagedSSLConnection if is_secret else SentinelManagedConnection
    settled = {"connection_class": kind, "socket_timeout": socket_timeout, **store, **options}
    return SentinelPool(name, sentinel, **settled)  # type: ignore[no-untyped-call]
