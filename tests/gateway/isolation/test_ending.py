"""How a handler's process ends: real hangs, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.artifacts import ArtifactStore
from gateway.isolation import Isolation
from gateway.jobcontext import JobCancelled, JobError
from tests.gateway.isolation.conftest import (
    MODULES,
    Reports,
    Runs,
    children,
    descendants,
    failure,
    parent_of,
    zygote_of,
)
from tests.processes import PATIENCE, eventually, is_alive


@pytest.mark.parametrize(
    "way", ["regex", "deaf", "stopped", "sleep", "cleanup", "stubborn", "deadlock"]
)
def test_a_cancel_ends_it_whatever_it_does(
    runs: Runs, thread: ThreadPoolExecutor, tmp_path: Path, way: str
) -> None:
    stop, reports, note = threading.Event(), Reports(), tmp_path / "note"
    given = {"way": way, "path": str(note)}
    running = thread.submit(runs.run, "hang", given, reports=reports, stop=stop)
    (pid,) = reports.pids
    assert is_alive(pid)
    stop.set()
    assert isinstance(running.exception(PATIENCE), JobCancelled)
    assert not is_alive(pid)
    assert note.exists() == (way == "cleanup")
    assert runs.works()


@pytest.mark.parametrize("way", ["regex", "deadlock", "sleep"])
def test_the_time_limit_ends_it(runs: Runs, way: str) -> None:
    reports = Reports()
    with pytest.raises(JobError) as caught:
        runs.run("hang", {"way": way}, reports=reports, seconds=1)
    assert caught.value.message == "The job took longer than its limit of 1 seconds."
    assert (caught.value.code, caught.value.retry) == ("timeout", True)
    assert not any(map(is_alive, reports.pids))


@pytest.mark.parametrize(
    "answer", [JobCancelled(), JobError("The time is up.", code="timeout", retry=True)]
)
def test_a_refused_report_stops_the_handler(
    runs: Runs, tmp_path: Path, answer: JobCancelled | JobError
) -> None:
    def refuse() -> None:
        if len(reports.progressed) == 3:
            raise answer

    reports, note = Reports(), tmp_path / "note"
    reports.on_progress = refuse
    with pytest.raises(type(answer)) as caught:
        runs.run("hang", {"way": "cleanup", "path": str(note)}, reports=reports)
    assert caught.value is answer
    assert note.read_text() == "cleaned up"
    assert len(reports.progressed) == 3


def test_what_a_report_raises_otherwise_ends_the_run(runs: Runs) -> None:
    def fall_over() -> None:
        raise LookupError("the store is full of eels")

    reports = Reports()
    reports.on_progress = fall_over
    with pytest.raises(LookupError, match="eels"):
        runs.run("hang", {"way": "regex"}, reports=reports)
    assert not any(map(is_alive, reports.pids))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt daemons")
@pytest.mark.parametrize("kind", ["child", "daemon"])
@pytest.mark.parametrize("end", ["return", "crash", "hang"])
def test_what_a_handler_started_ends_with_it(
    runs: Runs, thread: ThreadPoolExecutor, kind: str, end: str
) -> None:
    stop, reports = threading.Event(), Reports()
    given = {"kind": kind, "end": end, "count": 3}
    running = thread.submit(runs.run, "breed", given, reports=reports, stop=stop)
    assert len(reports.pids) == 3
    if end == "hang":
        stop.set()
    failed = running.exception(PATIENCE)
    assert (failed is None) == (end == "return")
    assert not any(map(is_alive, reports.pids))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_many_runs_leave_no_descriptor_and_no_process(
    runs: Runs, thread: ThreadPoolExecutor
) -> None:
    zygote = zygote_of(runs, thread)
    open_before, children_before = os.listdir("/proc/self/fd"), children()
    assert zygote in children_before
    for number in range(50):
        if number % 5:
            runs.run("pid", {})
        else:
            with pytest.raises(JobError):
                runs.run("fail", {"way": "exit"})
    assert len(os.listdir("/proc/self/fd")) == len(open_before)
    assert children() == children_before
    # Keepers are reaped by the kernel as they end, a moment after their last word.
    assert eventually(lambda: not descendants(zygote))


def test_a_killed_zygote_is_replaced_and_runs_go_on(runs: Runs, thread: ThreadPoolExecutor) -> None:
    stop, reports = threading.Event(), Reports()
    running = thread.submit(runs.run, "hang", {"way": "sleep"}, reports=reports, stop=stop)
    (pid,) = reports.pids
    zygote = parent_of(parent_of(pid))
    os.kill(zygote, signal.SIGKILL)
    assert eventually(lambda: not is_alive(zygote))
    assert runs.works()
    assert is_alive(pid)
    stop.set()
    assert isinstance(running.exception(PATIENCE), JobCancelled)
    assert not is_alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_a_handler_dies_with_its_keeper(runs: Runs, thread: ThreadPoolExecutor) -> None:
    reports = Reports()
    running = thread.submit(runs.run, "hang", {"way": "regex"}, reports=reports)
    (pid,) = reports.pids
    os.kill(parent_of(pid), signal.SIGKILL)
    lost = failure(running)
    assert (lost.message, lost.retry) == ("The job's process was lost.", True)
    assert eventually(lambda: not is_alive(pid))


WORKER = """
import sys, threading, time
from gateway.isolation import Isolation
from gateway.models import Job

class Reports:
    def progress(self, percent, message): print(message, flush=True)
    def keep(self, file): pass

isolation = Isolation(
    modules=["tests.gateway.isolated_types"], profile="development", artifacts_url=sys.argv[1]
)
given = {"kind": "daemon", "end": "hang"}
job = Job(
    id="job_00x", tenant="acme", type="isolated.breed", status="processing", rev=1, input=given
)
deadline = time.monotonic() + 600
isolation.run(job, Reports(), deadline=deadline, stop=threading.Event())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt daemons")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_everything_ends_with_the_worker(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, tmp_path.as_uri()],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as worker:
        assert worker.stdout is not None
        daemon = int(worker.stdout.readline())
        below = descendants(worker.pid)
        # The zygote, the keeper, the handler, and what that left behind.
        assert len(below) >= 4
        assert daemon in below
        worker.send_signal(number)
        worker.wait(PATIENCE)
        assert eventually(lambda: not any(map(is_alive, below)))


def test_what_cannot_be_imported_fails_every_run(tmp_path: Path) -> None:
    isolation = Isolation(
        modules=["no_such_module"], profile="development", artifacts_url=tmp_path.as_uri()
    )
    broken = Runs(isolation, ArtifactStore(tmp_path.as_uri()))
    for _ in range(2):
        with pytest.raises(JobError) as caught:
            broken.run("pid", {})
        assert caught.value.message == "The job's process could not be started."
        assert caught.value.retry
    isolation.close()


def test_a_closed_isolation_starts_nothing(tmp_path: Path) -> None:
    isolation = Isolation(modules=MODULES, profile="development", artifacts_url=tmp_path.as_uri())
    isolation.close()
    with pytest.raises(JobError, match="could not be started"):
        Runs(isolation, ArtifactStore(tmp_path.as_uri())).run("pid", {})
