"""Watching a job on a terminal, through a pipe, and being told to stop."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.gateway.cli.conftest import Cli
from tests.processes import eventually
from tests.running import Gateway

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
COLUMNS = 60


@dataclass(slots=True)
class Terminal:
    """A process on a pseudo-terminal."""

    process: subprocess.Popen[bytes]
    screen: int
    said: str = ""

    def read(self) -> bool:
        """Take in what was written; False when nobody will write any more."""
        try:
            piece = os.read(self.screen, 65_536)
        except OSError:  # how Linux says that the other side has closed
            return False
        self.said += piece.decode("utf-8", "replace")
        return bool(piece)

    def ended(self) -> int:
        """Read to the end; return the exit code."""
        while self.read():
            pass
        return self.process.wait(20)


@contextmanager
def terminal(cli: Cli, *arguments: str, **variables: str) -> Iterator[Terminal]:
    """Run the command on a terminal of its own."""
    screen, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environ = {**cli.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **variables}
    process = subprocess.Popen(
        cli.command(*arguments),
        stdin=other,
        stdout=other,
        stderr=other,
        env=environ,
        start_new_session=True,
    )
    os.close(other)
    try:
        yield Terminal(process, screen)
    finally:
        process.kill()
        process.wait()
        os.close(screen)


def working(gateway: Gateway, message: str = "", seconds: float = 1.0) -> str:
    """Submit a job that tells its progress; return its identifier."""
    given = {"payload": message, "seconds": seconds, "steps": 4}
    return str(gateway.submit(type="demo.echo", input=given)["jobId"])


def test_a_terminal_shows_a_bar(asking: Cli, whole: Gateway) -> None:
    with terminal(asking, "jobs", "watch", working(whole)) as shown:
        assert shown.ended() == 0
    drawn = shown.said.split("\r\x1b[K")
    assert len(drawn) > 2
    assert "█" in drawn[-1]
    assert "░" not in drawn[-1]
    assert "100 %  completed" in drawn[-1]
    assert COLOUR.search(shown.said)
    assert shown.said.endswith("\r\n")
    for line in drawn:
        assert len(COLOUR.sub("", line).strip()) < COLUMNS


def test_no_colours_where_they_are_not_wanted(asking: Cli, whole: Gateway) -> None:
    with terminal(asking, "jobs", "watch", working(whole), NO_COLOR="1") as shown:
        assert shown.ended() == 0
    assert not COLOUR.search(shown.said)
    assert "\r\x1b[K" in shown.said


def test_a_terminal_that_can_only_print(asking: Cli, whole: Gateway) -> None:
    with terminal(asking, "jobs", "watch", working(whole), TERM="dumb") as shown:
        assert shown.ended() == 0
    assert "\x1b" not in shown.said
    assert shown.said.splitlines()[-1].startswith("100 %  completed")


def test_a_terminal_without_blocks(asking: Cli, whole: Gateway) -> None:
    with terminal(asking, "jobs", "watch", working(whole), PYTHONIOENCODING="ascii") as shown:
        assert shown.ended() == 0
    assert "#" * 30 in shown.said


def test_a_pipe_gets_lines(asking: Cli, whole: Gateway) -> None:
    ran = asking.process("jobs", "watch", working(whole))
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert "\x1b" not in ran.stdout
    assert lines[-1].startswith("100 %  completed")
    percents = [int(line.split(" %")[0]) for line in lines]
    assert percents == sorted(percents)
    assert len(set(lines)) == len(lines)


def test_a_program_gets_events(asking: Cli, whole: Gateway) -> None:
    job_id = working(whole)
    ran = asking.process("jobs", "watch", job_id, "--json")
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert events[-1]["event"] == "completed"
    assert {event["job"]["jobId"] for event in events} == {job_id}


def test_one_that_is_over_is_shown_at_once(asking: Cli, whole: Gateway) -> None:
    job_id = working(whole, seconds=0)
    whole.ended(job_id)
    assert asking("jobs", "watch", job_id).splitlines()[-1].startswith("100 %  completed")
    last = asking("jobs", "watch", job_id, "--json").splitlines()[-1]
    assert json.loads(last)["event"] == "completed"


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_ctrl_c_stops_watching_and_not_the_job(
    asking: Cli, whole: Gateway, as_json: list[str]
) -> None:
    job_id = working(whole, seconds=600)
    with terminal(asking, "jobs", "watch", job_id, *as_json) as shown:
        assert eventually(lambda: shown.read() and "processing" in shown.said)
        os.killpg(shown.process.pid, signal.SIGINT)
        assert shown.ended() == 130
    assert "Traceback" not in shown.said
    assert f"{job_id} goes on" in shown.said
    assert whole.job(job_id)["status"] == "processing"
    whole.client.post(f"/v1/jobs/{job_id}/cancel")


@pytest.mark.parametrize(
    "arguments", [["jobs", "list", "--json", "--limit", "1000"], ["config", "show"]]
)
def test_nobody_reads_on(asking: Cli, whole: Gateway, arguments: list[str]) -> None:
    working(whole, message="x" * 200_000, seconds=0)
    with subprocess.Popen(
        asking.command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=asking.environ,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(20) in {0, 1}
        assert process.stderr.read() == b""
