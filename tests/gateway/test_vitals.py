"""A worker of several processes, seen from its one admin port."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from config.clock import SECOND
from config.settings import environment
from config.sharedfiles import FOLDER, shared_folder
from config.store import Store
from gateway.vitals import SharedHealth, shared_registry
from tests.running import ROOT

PROCESS = """
import sys
from prometheus_client import CollectorRegistry
from config.clock import SystemClock
from gateway.metrics import JobMetrics
from gateway.vitals import Vitals

class Clock(SystemClock):
    def now(self):
        return int(sys.argv[1])

registry = CollectorRegistry()
metrics, vitals = JobMetrics(registry), Vitals(registry, Clock())
metrics.attempted("demo.echo", "completed", 0.2)
metrics.attempted("demo.echo", "failed", 3.0)
metrics.claim_lost()
vitals.turned()
if sys.argv[2:]:
    vitals.draining()
"""


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000

    def now(self) -> int:
        return self.seconds * SECOND

    def monotonic(self) -> float:
        return float(self.seconds)


def process(folder: Path, turned: int, *, draining: bool = False) -> None:
    """Be a process that counts in `folder`, turned at `turned` seconds, and ends."""
    subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            PROCESS,
            str(turned * SECOND),
            *(["stop"] if draining else []),
        ],
        env=environment() | {FOLDER: str(folder), "PYTHONPATH": str(ROOT)},
        check=True,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_what_processes_count_is_added_up(tmp_path: Path) -> None:
    registry = shared_registry(tmp_path)
    assert list(registry.collect()) == []
    for _ in range(3):
        process(tmp_path, 1_000)
    (tmp_path / "counter_1.db").touch()
    assert registry.get_sample_value("gateway_job_claims_lost_total") == 3
    name = "gateway_job_attempt_seconds"
    labels = {"type": "demo.echo", "outcome": "completed"}
    assert registry.get_sample_value(f"{name}_count", labels) == 3
    assert registry.get_sample_value(f"{name}_sum", labels) == pytest.approx(0.6)
    assert registry.get_sample_value(f"{name}_bucket", {**labels, "le": "0.25"}) == 3
    assert registry.get_sample_value(f"{name}_bucket", {**labels, "le": "0.1"}) == 0


async def test_a_worker_is_ready_when_all_of_its_processes_are(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    health = SharedHealth(store, clock, shared_registry(tmp_path), processes=2)

    async def reasons() -> list[str]:
        return [reason.code for reason in await health.reasons()]

    assert await reasons() == ["starting"]
    process(tmp_path, 1_000)
    assert await reasons() == ["starting"]
    process(tmp_path, 1_000)
    assert await reasons() == []
    process(tmp_path, 1_000, draining=True)
    assert await reasons() == ["draining"]


async def test_one_process_whose_loop_stands_still_is_told(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    health = SharedHealth(store, clock, shared_registry(tmp_path), processes=2)
    assert health.stalled() == []
    process(tmp_path, 1_000)
    process(tmp_path, 1_000 + int(health.patience))
    clock.seconds += int(health.patience)
    assert health.stalled() == []
    clock.seconds += 1
    [stalled] = health.stalled()
    assert stalled.startswith("worker process ")


def test_the_folder_goes_and_so_does_what_a_killed_run_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = (
        "import os, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from config.sharedfiles import shared_folder\n"
        "with shared_folder() as folder:\n"
        "    (folder / 'counter_1.db').touch()\n"
        "    os._exit(0)\n"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environment() | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    [left] = tmp_path.iterdir()
    foreign = tmp_path / "gateway-metrics-without-a-lock"
    foreign.mkdir()
    assert FOLDER not in environment()
    with shared_folder() as mine:
        assert environment()[FOLDER] == str(mine)
        assert not left.exists()
        assert foreign.exists()
        with shared_folder() as other:
            assert mine.exists(), "it is in use"
            assert environment()[FOLDER] == str(other)
        assert environment()[FOLDER] == str(mine)
    assert list(tmp_path.iterdir()) == [foreign]
    assert FOLDER not in environment()
