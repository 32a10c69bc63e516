"""What a handler in a process of its own may do."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.parent import PARENT_FD
from config.sharedfiles import FOLDER
from gateway.artifacts import ArtifactStore, input_path, output_path
from gateway.isolation import Isolation
from gateway.jobcontext import JobCancelled, JobError
from gateway.models import StoredFile
from tests.gateway.isolation.conftest import (
    JOB_ID,
    MODULES,
    Reports,
    Runs,
)
from tests.processes import eventually, is_alive


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
