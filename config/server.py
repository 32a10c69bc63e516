"""What the server of a store says of itself, for whoever looks for what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from config.clock import SECOND, Clock
from config.errors import ScriptFailed
from config.store import Store

_REPLICA: Final = re.compile(r"slave\d+")
_LAG_SECONDS: Final = 3
"""A replica says every second how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A Redis or Valkey server.

    Attributes:
        name: `redis`, `valkey`, or what else it calls itself.
        version: its own.
        run_id: of this start of it.
        role: `master` or `slave`.
        replicas: how many are connected to it.
        in_sync: how many of them have all but what it wrote last.
        appendonly: whether writes go to a file.
        appendfsync: when they are on disk; None where CONFIG may not be asked.
        writes_fail: whether the last write to that file failed.
        policy: what is thrown away at the memory limit.
        maxmemory: that limit, bytes; 0 for none.
        used_memory: bytes.
        ahead: µs that its clock is ahead of this host's.
        way: µs that question and answer took, by which `ahead` may be wrong.
    """

    name: str
    version: str
    run_id: str
    role: str
    replicas: int
    in_sync: int
    appendonly: bool
    appendfsync: str | None
    writes_fail: bool
    policy: str
    maxmemory: int
    used_memory: int
    ahead: int
    way: int


async def read_server(store: Store, clock: Clock) -> Server:
    """Ask the server of `store`.

    Raises:
        StoreUnavailable: it does not answer.
        ScriptFailed: it does not let us ask.
    """
    info: dict[str, Any] = await store.command("INFO")
    before = clock.now()
    seconds, micros = await store.command("TIME")
    after = clock.now()
    name = str(info.get("server_name", "redis"))
    return Server(
        name=name,
        # Valkey tells of two: this one, and that of the last Redis it is compatible with.
        version=str(info.get(f"{name}_version", info["redis_version"])),
        run_id=str(info["run_id"]),
        role=str(info["role"]),
        replicas=int(info.get("connected_slaves", 0)),
        in_sync=sum(_is_in_sync(each) for name, each in info.items() if _REPLICA.fullmatch(name)),
        appendonly=info.get("aof_enabled") == 1,
        appendfsync=await _appendfsync(store),
        writes_fail=info.get("aof_last_write_status", "ok") != "ok",
        policy=str(info.get("maxmemory_policy", "")),
        maxmemory=int(info.get("maxmemory", 0)),
        used_memory=int(info["used_memory"]),
        ahead=int(seconds) * SECOND + int(micros) - (before + after) // 2,
        way=after - before,
    )


def _is_in_sync(replica: dict[str, Any]) -> bool:
    return replica.get("state") == "online" and 0 <= replica.get("lag", -1) <= _LAG_SECONDS


async def _appendfsync(store: Store) -> str | None:
    try:
        reply = await store.command("CONFIG GET", "appendfsync")
    except ScriptFailed:
        return None
    [value] = reply.values() if isinstance(reply, dict) else reply[1::2]
    return value.decode() if isinstance(value, bytes) else str(value)
