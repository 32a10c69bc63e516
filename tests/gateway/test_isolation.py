"""Handlers in processes of their own: real crashes, real hangs, and nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from config.clock import SystemClock
from config.parent import PARENT_FD
from config.sharedfiles import FOLDER
from gateway.artifacts import ArtifactStore, input_path, output_path
from gateway.isolation import Isolation
from gateway.jobcontext import JobCancelled, JobError
from gateway.models import Job, JsonObject, StoredFile
from tests.processes import PATIENCE, eventually, is_alive

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


# What a handler may do


def test_a_handler_reads_reports_and_saves(runs: Runs) -> None:
    content = bytes(range(256)) * 4_000
    path = input_path(JOB_ID, 0)
    kept = runs.artifacts.save(path, content, limit=len(content))
    upload = StoredFile(
        path=path,
        name="a.bin",
        size=kept.size,
        sha256=kept.sha256,
        content_type="application/octet-stream",
    )
    reports = Reports()
    result = runs.run(
        "read",
        {"file": {"part": "a"}},
        reports=reports,
        files={"a": upload},
        metadata={"colour": "blue"},
    )
    assert result["sha256"] == hashlib.sha256(content).hexdigest()
    assert (result["name"], result["size"]) == ("a.bin", len(content))
    assert result["attempt"] == f"1 of 3 of {JOB_ID}"
    assert result["metadata"] == {"colour": "blue"}
    assert [copy["href"] for copy in result["copies"]] == [
        "artifact:bytes.bin",
        "artifact:file.bin",
    ]
    assert reports.progressed == [(10, "Reading"), (60, "Writing"), (100, ("Done" * 1_000)[:500])]
    assert reports.kept.keys() == {"bytes.bin", "file.bin"}
    for name, file in reports.kept.items():
        assert file.path == output_path(JOB_ID, name)
        assert file.sha256 == kept.sha256
        with runs.artifacts.local_copy(file.path) as copy:
            assert copy.read() == content
    assert reports.kept["file.bin"].content_type == "application/x-copy"


def test_large_input_comes_from_its_file(runs: Runs) -> None:
    encoded = json.dumps({"way": "job_error"}).encode()
    path = f"jobs/{JOB_ID}/input.json"
    kept = runs.artifacts.save(path, encoded, limit=len(encoded))
    file = StoredFile(
        path=path,
        name="input.json",
        size=kept.size,
        sha256=kept.sha256,
        content_type="application/json",
    )
    with pytest.raises(JobError, match="The moon is full"):
        runs.run("fail", None, input_file=file)


def test_every_run_has_a_process_of_its_own(runs: Runs, thread: ThreadPoolExecutor) -> None:
    results = list(thread.map(lambda _: runs.run("pid", {})["word"], range(24)))
    assert len(set(results)) == 24
    assert not any(is_alive(int(pid)) for pid in results)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_is_the_workers_own_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (PARENT_FD, FOLDER):
        monkeypatch.setenv(name, str(tmp_path))
    isolation = Isolation(modules=MODULES, profile="development", artifacts_url=tmp_path.as_uri())
    try:
        seen = Runs(isolation, ArtifactStore(tmp_path.as_uri())).run("look", {})
    finally:
        isolation.close()
    assert {PARENT_FD, FOLDER}.isdisjoint(seen["environment"])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_starts_from_clean_surroundings(runs: Runs) -> None:
    seen = runs.run("look", {})
    assert seen["isSessionLeader"]
    assert seen["stdin"] == "/dev/null"
    assert seen["core"] == [0, 0]
    assert seen["handlers"] == [str(signal.SIG_DFL)] * 3
    assert not seen["isMasked"]
    # The line to the worker, and the listing itself.
    assert len(seen["descriptors"]) == 2
    own, of_its_children = seen["temporary"]
    assert own == of_its_children
    assert own != tempfile.gettempdir()


def test_temporary_files_go_with_the_run(runs: Runs, thread: ThreadPoolExecutor) -> None:
    stop, reports = threading.Event(), Reports()
    reports.on_progress = lambda: stop.set() if len(reports.progressed) == 2 else None
    with pytest.raises(JobCancelled):
        runs.run("hang", {"way": "litter"}, reports=reports, stop=stop)
    folder = Path(reports.progressed[1][1])
    assert eventually(lambda: not folder.parent.exists())


# What goes wrong


@pytest.mark.parametrize(
    ("way", "sentence", "code", "retry"),
    [
        ("segfault", "The job's process crashed (SIGSEGV).", "handler_error", True),
        ("abort", "The job's process crashed (SIGABRT).", "handler_error", True),
        (
            "killed",
            "The job's process was killed (SIGKILL); the machine may be short of memory.",
            "handler_error",
            True,
        ),
        (
            "exit",
            "The job's process ended without a result (exit code 3).",
            "handler_error",
            True,
        ),
        (
            "sys.exit",
            "The job's process ended without a result (exit code 4).",
            "handler_error",
            True,
        ),
        (
            "closed",
            "The job's process ended without a result (exit code 1).",
            "handler_error",
            True,
        ),
        ("job_error", "The moon is full.", "full_moon", True),
        (
            "unexpected",
            "The job's handler failed unexpectedly (LookupError).",
            "handler_error",
            True,
        ),
        (
            "not_json",
            "The job's handler failed unexpectedly (UnicodeEncodeError).",
            "handler_error",
            True,
        ),
        ("wrong_result", "isolated.fail must return Word, not str", "handler_error", False),
        ("huge", "The job's result is larger than the limit of 64 MiB.", "handler_error", False),
        ("garbage", "The job's process could not be understood.", "handler_error", True),
    ],
)
def test_a_failure_says_what_happened(
    runs: Runs, way: str, sentence: str, code: str, retry: bool
) -> None:
    with pytest.raises(JobError) as caught:
        runs.run("fail", {"way": way})
    assert (caught.value.message, caught.value.code, caught.value.retry) == (sentence, code, retry)
    assert runs.works()


def test_a_handler_that_says_it_was_cancelled_is_believed(runs: Runs) -> None:
    with pytest.raises(JobCancelled):
        runs.run("fail", {"way": "cancelled"})


def test_a_forked_copy_does_not_speak_for_the_job(runs: Runs) -> None:
    assert runs.run("fail", {"way": "forked"})["word"] == "the original"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound address space")
@pytest.mark.parametrize("appetite", ["bytes", "objects", "map"])
def test_memory_is_bounded(runs: Runs, appetite: str) -> None:
    with pytest.raises(JobError) as caught:
        runs.run("eat", {"of": appetite})
    assert caught.value.message == "The job needed more memory than its limit of 128 MiB."
    assert (caught.value.code, caught.value.retry) == ("memory_limit", False)
    assert runs.works()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound address space")
def test_c_code_that_aborts_under_a_limit_of_memory_is_taken_to_have_hit_it(runs: Runs) -> None:
    with pytest.raises(JobError) as caught:
        runs.run("eat", {"of": "c"})
    assert caught.value.message == (
        "The job's process aborted; it may have needed more memory than its limit of 128 MiB."
    )
    assert (caught.value.code, caught.value.retry) == ("memory_limit", False)
    assert runs.works()


def test_another_crash_under_a_limit_of_memory_is_a_crash(runs: Runs) -> None:
    with pytest.raises(JobError) as caught:
        runs.run("eat", {"of": "fault"})
    assert caught.value.message == "The job's process crashed (SIGSEGV)."
    assert (caught.value.code, caught.value.retry) == ("handler_error", True)


def test_what_is_loaded_does_not_count_as_memory_of_the_job(runs: Runs) -> None:
    reports = Reports()
    assert runs.run("eat", {"of": "little"}, reports=reports)["word"] == "True"
    assert reports.kept.keys() == {"kept.bin"}


# Stopping


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


# Nothing stays


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
