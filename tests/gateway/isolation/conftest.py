"""Handlers in processes of their own, run as a worker runs them."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from config.clock import SystemClock
from gateway.artifacts import ArtifactStore
from gateway.isolation import Isolation
from gateway.jobcontext import JobCancelled, JobError
from gateway.models import Job, JsonObject, StoredFile
from tests.processes import PATIENCE

MODULES = ["tests.gateway.isolated_types"]
JOB_ID = "job_00isolated"


class Reports:
    """Hears what a run reports; `on_progress` may answer as the store would."""

    def __init__(self) -> None:
        self.progressed: list[tuple[int, str]] = []
        self.kept: dict[str, StoredFile] = {}
        self.heard = threading.Event()
        self.on_progress: Callable[[], None] | None = None

    def progress(self, percent: int, message: str) -> None:
        self.progressed.append((percent, message))
        self.heard.set()
        if self.on_progress is not None:
            self.on_progress()

    def keep(self, file: StoredFile) -> None:
        self.kept[file.name] = file

    @property
    def pids(self) -> list[int]:
        """The process ids that the first report told."""
        assert self.heard.wait(PATIENCE)
        return [int(pid) for pid in self.progressed[0][1].split()]


class Runs:
    """An isolation, and runs on it."""

    def __init__(self, isolation: Isolation, artifacts: ArtifactStore) -> None:
        self.isolation = isolation
        self.artifacts = artifacts

    def run(
        self,
        name: str,
        given: object,
        *,
        reports: Reports | None = None,
        seconds: float = 60,
        stop: threading.Event | None = None,
        **changed: Any,
    ) -> JsonObject:
        job = Job(
            id=JOB_ID,
            tenant="acme",
            type=f"isolated.{name}",
            status="processing",
            rev=1,
            attempt=1,
            max_attempts=3,
            timeout=seconds,
            input=given,
            **changed,
        )
        return self.isolation.run(
            job,
            reports or Reports(),
            deadline=SystemClock().monotonic() + seconds,
            stop=stop or threading.Event(),
        )

    def works(self) -> bool:
        """Whether the next run is none the worse."""
        return int(self.run("pid", {})["word"]) != os.getpid()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    url = tmp_path_factory.mktemp("artifacts").as_uri()
    isolation = Isolation(modules=MODULES, profile="development", artifacts_url=url)
    yield Runs(isolation, ArtifactStore(url))
    isolation.close()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """Where a run goes on while the test does something to it."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def parents() -> dict[int, int]:
    """Return every process's parent; the dead that nobody reaped are among them."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def descendants(pid: int) -> set[int]:
    """Return every process below `pid`."""
    known, found = parents(), {pid}
    while more := {child for child, parent in known.items() if parent in found} - found:
        found |= more
    return found - {pid}


def parent_of(pid: int) -> int:
    found = subprocess.run(
        ["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


def children() -> set[int]:
    """Return this process's children."""
    return {child for child, parent in parents().items() if parent == os.getpid()}


def zygote_of(runs: Runs, thread: ThreadPoolExecutor) -> int:
    """Return the zygote's process id, from a run that it forked."""
    stop, reports = threading.Event(), Reports()
    running = thread.submit(runs.run, "hang", {"way": "sleep"}, reports=reports, stop=stop)
    zygote = parent_of(parent_of(reports.pids[0]))
    stop.set()
    assert isinstance(running.exception(PATIENCE), JobCancelled)
    return zygote


def failure(future: Future[JsonObject]) -> JobError:
    error = future.exception(PATIENCE)
    assert isinstance(error, JobError)
    return error
