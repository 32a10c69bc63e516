"""What goes wrong in a handler's process: real crashes, bounds, and what is said of them."""

from __future__ import annotations

import sys

import pytest

from gateway.jobcontext import JobCancelled, JobError
from tests.gateway.isolation.conftest import (
    Reports,
    Runs,
)


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
