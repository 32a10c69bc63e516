"""What the doctor makes of what it sees."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from config.clock import SECOND
from config.server import Server
from config.values import Ack
from gateway.cli.findings import (
    Finding,
    Level,
    of_dead,
    of_disk,
    of_durable,
    of_keys_file,
    of_partitions,
    of_senders,
    of_soft,
    of_workers,
)

HEALTHY = Server(
    name="redis",
    version="7.2.4",
    run_id="a",
    role="master",
    replicas=1,
    in_sync=1,
    appendonly=True,
    appendfsync="always",
    writes_fail=False,
    policy="noeviction",
    maxmemory=2**30,
    used_memory=2**20,
    ahead=0,
    way=1_000,
)


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {each.check: each.level for each in findings}


def test_dead_letters_are_told_of_and_are_no_fault() -> None:
    none = of_dead(callbacks=0, jobs=0, breakers=0)
    assert (none.level, none.says, none.advice) == ("ok", "none", "")
    jobs = of_dead(callbacks=0, jobs=2, breakers=0)
    assert "failed jobs: 2" in jobs.says
    assert jobs.advice
    some = of_dead(callbacks=3, jobs=0, breakers=1)
    assert (some.level, "callbacks: 3" in some.says) == ("ok", True)
    assert "do not answer: 1" in some.says
    assert "RUNBOOK.md" in some.advice


def test_a_healthy_store() -> None:
    for ack in get_args(Ack):
        assert set(levels(of_durable(HEALTHY, ack)).values()) == {"ok"}
    assert set(levels(of_soft(replace(HEALTHY, run_id="b"), HEALTHY)).values()) == {"ok"}


@pytest.mark.parametrize(
    ("changes", "check", "level"),
    [
        ({"version": "6.2.14"}, "store", "fault"),
        ({"version": "7.0.0"}, "store", "ok"),
        ({"version": "255.255.255"}, "store", "ok"),
        ({"role": "slave"}, "store", "fault"),
        ({"appendonly": False}, "persistence", "fault"),
        ({"writes_fail": True}, "persistence", "fault"),
        ({"appendfsync": "everysec"}, "persistence", "warning"),
        ({"appendfsync": "no"}, "persistence", "warning"),
        ({"appendfsync": None}, "persistence", "warning"),
        ({"policy": "allkeys-lru"}, "eviction", "fault"),
        ({"policy": "volatile-ttl"}, "eviction", "fault"),
        ({"maxmemory": 0}, "store memory", "warning"),
        ({"used_memory": 2**30 * 8 // 10 + 1}, "store memory", "warning"),
        ({"used_memory": 2**30 * 96 // 100}, "store memory", "fault"),
        ({"ahead": 3 * SECOND}, "clocks", "warning"),
        ({"ahead": -3 * SECOND}, "clocks", "warning"),
        ({"ahead": -61 * SECOND}, "clocks", "fault"),
        ({"ahead": 3 * SECOND, "way": 2 * SECOND}, "clocks", "ok"),
    ],
)
def test_a_store_that_is_not_as_it_should_be(
    changes: dict[str, object], check: str, level: Level
) -> None:
    findings = of_durable(replace(HEALTHY, **changes), "fsync")  # type: ignore[arg-type]
    expected = dict.fromkeys(levels(of_durable(HEALTHY, "fsync")), "ok") | {check: level}
    assert levels(findings) == expected
    assert all(bool(each.advice) == (each.level != "ok") for each in findings)


@pytest.mark.parametrize(
    ("changes", "check", "level"),
    [
        ({"replicas": 0, "in_sync": 0}, "replication", "fault"),
        ({"replicas": 2, "in_sync": 0}, "replication", "fault"),
        ({"replicas": 2, "in_sync": 1}, "replication", "ok"),
        ({"appendfsync": "everysec"}, "persistence", "ok"),
        ({"appendfsync": None}, "persistence", "ok"),
        ({"appendonly": False}, "persistence", "fault"),
        ({"writes_fail": True}, "persistence", "fault"),
    ],
)
def test_a_store_that_a_replica_must_follow(
    changes: dict[str, object], check: str, level: Level
) -> None:
    findings = of_durable(replace(HEALTHY, **changes), "replica")  # type: ignore[arg-type]
    expected = dict.fromkeys(levels(of_durable(HEALTHY, "replica")), "ok") | {check: level}
    assert levels(findings) == expected
    assert "replication" not in levels(of_durable(HEALTHY, "fsync"))


def test_one_server_for_both() -> None:
    assert levels(of_soft(HEALTHY, HEALTHY)) == {"broker": "fault"}


@pytest.mark.parametrize(
    ("kept", "asked", "level"), [(None, 4, "ok"), (4, 4, "ok"), (1, 4, "fault")]
)
def test_partitions(kept: int | None, asked: int, level: Level) -> None:
    assert of_partitions(kept, asked).level == level


@pytest.mark.parametrize(
    ("threads", "pending", "oldest", "level"),
    [
        (0, 0, 0.0, "warning"),
        (0, 3, 0.0, "fault"),
        (8, 3, 1.0, "ok"),
        (8, 0, 0.0, "ok"),
        (8, 3, 60.0, "warning"),
    ],
)
def test_workers(threads: int, pending: int, oldest: float, level: Level) -> None:
    assert of_workers(threads=threads, pending=pending, oldest=oldest).level == level


@pytest.mark.parametrize(
    ("processes", "late", "level"),
    [
        (0, 0.0, "warning"),
        (0, 1.0, "fault"),
        (1, 0.0, "ok"),
        (2, 1.0, "ok"),
        (2, 10.0, "warning"),
    ],
)
def test_senders(processes: int, late: float, level: Level) -> None:
    assert of_senders(processes=processes, late=late).level == level


@pytest.mark.parametrize(
    ("free", "level"),
    [(50 * 2**30, "ok"), (9 * 2**30, "warning"), (2**30, "fault"), (2**20, "fault")],
)
def test_disks(free: int, level: Level) -> None:
    assert of_disk("data disk", "/data", free=free, total=100 * 2**30).level == level


@pytest.mark.parametrize(("mode", "level"), [(0o100600, "ok"), (0o100640, "warning")])
def test_who_may_read_the_keys(mode: int, level: Level) -> None:
    assert of_keys_file("sealing.keys", mode).level == level
