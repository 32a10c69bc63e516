"""What `gateway doctor` makes of what it sees: rules that know no store and no disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config.clock import SECOND
from config.server import Server
from config.values import Ack

Level = Literal["ok", "warning", "fault", "skipped"]

_OLDEST_VERSION = (7, 0)
_CLOCK_WARNING, _CLOCK_FAULT = 2 * SECOND, 60 * SECOND
_MEMORY_WARNING, _MEMORY_FAULT = 0.8, 0.95
_JOB_LAG, _CALLBACK_LAG = 60.0, 10.0
"""Seconds."""
_DISK_WARNING, _DISK_FAULT = 0.1, 0.02
_DISK_FAULT_BYTES = 100 * 2**20


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at.
        level: `fault`: the gateway does not keep what it promises; `warning`: it may come to that;
            `skipped`: it could not be looked at, and need not be.
        says: how it is.
        advice: what to do about it; empty where there is nothing to do.
    """

    check: str
    level: Level
    says: str
    advice: str = ""


def of_durable(server: Server, ack: Ack) -> list[Finding]:
    """Judge the durable store's server by what a write waits for."""
    return [
        _version("store", server),
        _persistence(server, ack),
        *([_replication(server)] if ack == "replica" else []),
        _eviction(server),
        _memory("store memory", server),
        _clock(server),
    ]


def of_soft(server: Server, durable: Server) -> list[Finding]:
    """Judge the soft store's server, beside the durable one."""
    if server.run_id == durable.run_id:
        same = "it is the same server as the durable store"
        return [Finding("broker", "fault", same, "name another server in broker.url")]
    return [_version("broker", server), _memory("broker memory", server)]


def _version(check: str, server: Server) -> Finding:
    if server.role != "master":
        says = "it is a replica, which takes no writes"
        return Finding(check, "fault", says, f"name the primary in {check}.url")
    numbers = tuple(int(part) for part in server.version.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST_VERSION:
        says = f"it is {server.name} {server.version}"
        return Finding(check, "fault", says, "use Redis 7 or Valkey")
    return Finding(check, "ok", f"answers, {server.name} {server.version}")


def _persistence(server: Server, ack: Ack) -> Finding:
    check = "persistence"
    if not server.appendonly:
        says = "appendonly is off: a restart of the store loses jobs whose 202 was sent"
        return Finding(check, "fault", says, "set appendonly yes and appendfsync always")
    if server.writes_fail:
        says = "the last write to the append-only file failed"
        return Finding(check, "fault", says, "look at the disk of the store and at its log")
    if ack == "replica":
        return Finding(check, "ok", "appendonly is on; a replica has what is not on disk yet")
    match server.appendfsync:
        case "always":
            return Finding(check, "ok", "every write is on disk before it is answered")
        case None:
            says = "appendonly is on; when writes reach the disk may not be asked (CONFIG)"
            return Finding(check, "warning", says, "make sure that appendfsync is always")
        case other:
            says = f"appendfsync is {other}: a crash of the store's host loses what it answered"
            return Finding(check, "warning", says, "set appendfsync always")


def _replication(server: Server) -> Finding:
    check = "replication"
    if server.in_sync:
        says = f"{server.in_sync} of {server.replicas} replicas have what was written"
        return Finding(check, "ok", says)
    says = "no replica is connected" if not server.replicas else "no replica keeps up"
    advice = "start one (replicaof), see its log, or set store.ack to fsync"
    return Finding(check, "fault", f"{says}: every submission is answered 503", advice)


def _eviction(server: Server) -> Finding:
    check = "eviction"
    if server.policy != "noeviction":
        says = f"maxmemory-policy is {server.policy}: a full store throws jobs away"
        return Finding(check, "fault", says, "set maxmemory-policy noeviction")
    return Finding(check, "ok", "a full store refuses new jobs and throws nothing away")


def _memory(check: str, server: Server) -> Finding:
    used = _mebibytes(server.used_memory)
    if server.maxmemory == 0:
        says = f"{used} are used and there is no limit: the system ends a store that is too large"
        return Finding(check, "warning", says, "set maxmemory below what the host has")
    share = server.used_memory / server.maxmemory
    says = f"{used} of {_mebibytes(server.maxmemory)} are used"
    advice = "give the store more memory, or keep results and dead letters for less long"
    return Finding(check, *_by_share(share, _MEMORY_WARNING, _MEMORY_FAULT, says, advice))


def _by_share(
    share: float, warning: float, fault: float, says: str, advice: str
) -> tuple[Level, str, str]:
    if share >= fault:
        return "fault", says, advice
    return ("warning", says, advice) if share >= warning else ("ok", says, "")


def _clock(server: Server) -> Finding:
    check = "clocks"
    off = max(0, abs(server.ahead) - server.way)
    side = "ahead of" if server.ahead > 0 else "behind"
    says = f"the store's clock is {off / SECOND:.1f} s {side} this host's"
    advice = "have both hosts take the time by NTP; receivers tolerate five minutes"
    if off >= _CLOCK_FAULT:
        return Finding(check, "fault", says, advice)
    if off >= _CLOCK_WARNING:
        return Finding(check, "warning", says, advice)
    return Finding(check, "ok", "those of the store and of this host agree")


def of_partitions(kept: int | None, asked: int) -> Finding:
    """Judge the number of partitions: as the store was made, and as the settings have it."""
    if kept is None:
        return Finding("partitions", "ok", f"the store is new and will have {asked}")
    if kept != asked:
        says = f"store.partitions is {asked}, and the store was made with {kept}"
        return Finding("partitions", "fault", says, f"set store.partitions to {kept}")
    return Finding("partitions", "ok", f"{kept}, as the store was made")


def of_workers(*, threads: int, pending: int, oldest: float) -> Finding:
    """Judge whether jobs are worked on in time; `oldest` waits for so many seconds."""
    if threads == 0:
        level: Level = "fault" if pending else "warning"
        nobody = f"{pending} jobs wait, nobody works"
        return Finding("jobs", level, nobody, "start `gateway worker`")
    says = f"{pending} jobs wait, {threads} threads work"
    if oldest >= _JOB_LAG:
        advice = "start more workers; if nothing moves, see whether a relay runs"
        return Finding("jobs", "warning", f"{says}; the oldest waits for {oldest:.0f} s", advice)
    return Finding("jobs", "ok", says)


def of_senders(*, processes: int, late: float) -> Finding:
    """Judge whether callbacks are sent in time; one that is due is `late` by so many seconds."""
    if processes == 0:
        level: Level = "fault" if late else "warning"
        return Finding("callbacks", level, "nobody sends them", "start `gateway delivery`")
    if late >= _CALLBACK_LAG:
        says = f"the one due longest waits for {late:.0f} s"
        return Finding("callbacks", "warning", says, "start more `gateway delivery`")
    who = "a process sends" if processes == 1 else f"{processes} processes send"
    return Finding("callbacks", "ok", f"{who} them, none is late")


def of_dead(*, callbacks: int, jobs: int, breakers: int) -> Finding:
    """Tell of dead letters: the installation is well, and somebody misses what they were."""
    check = "dead letters"
    says = f"callbacks: {callbacks}, failed jobs: {jobs}" if callbacks or jobs else "none"
    if breakers:
        says += f"; endpoints that do not answer: {breakers}, see `gateway endpoints list`"
    advice = "see `gateway dead-letters stats` and scripts/RUNBOOK.md" if callbacks or jobs else ""
    return Finding(check, "ok", says, advice)


def of_disk(check: str, folder: str, *, free: int, total: int) -> Finding:
    """Judge the room on the disk of a folder; bytes."""
    says = f"{_mebibytes(free)} are free for {folder}"
    if free < _DISK_FAULT_BYTES:
        return Finding(check, "fault", says, "make room")
    taken = 1 - free / total
    return Finding(check, *_by_share(taken, 1 - _DISK_WARNING, 1 - _DISK_FAULT, says, "make room"))


def of_keys_file(name: str, mode: int) -> Finding:
    """Judge who may read the file of sealing keys."""
    if mode & 0o077:
        says = f"others may read {name} (mode {mode & 0o777:o})"
        return Finding("sealing keys", "warning", says, f"chmod 600 {name}")
    return Finding("sealing keys", "ok", f"{name} is for its owner's eyes only")


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
