"""Processes that leave with their parent, and the guardian of those that cannot."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from config.parent import PARENT_FD, watch_parent
from config.settings import environment
from tests.processes import PATIENCE, eventually, is_alive


class Tree:
    """Processes that inherit the read end of a pipe; the write end is the test's."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.started: list[subprocess.Popen[str]] = []

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**environment(), PARENT_FD: str(self.read_end)},
            pass_fds=(self.read_end,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def abandon(self) -> None:
        """What the kernel does when a parent dies."""
        os.close(self.write_end)
        self.write_end = -1

    def close(self) -> None:
        if self.write_end >= 0:
            self.abandon()
        os.close(self.read_end)
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = Tree()
    yield tree
    tree.close()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


WATCHER = """
import signal
from config.parent import watch_parent
watch_parent(grace_seconds=0.2)
{handler}
print("ready", flush=True)
while True:
    signal.pause()
"""

FORKING = """
import os, signal
from config.parent import watch_parent
watch_parent()
child = os.fork()
if child == 0:
    watch_parent()
# In one write: both write to one pipe, and an unbuffered print writes the end of its line apart.
os.write(1, b"%d\\n" % os.getpid())
while True:
    signal.pause()
"""

SLEEPER = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


def test_nothing_is_watched_unasked() -> None:
    assert watch_parent({}) is False


@pytest.mark.parametrize("text", ["x", "-1", "99999", "0x3"])
def test_what_is_no_pipe_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=PARENT_FD):
        watch_parent({PARENT_FD: text})


def test_a_file_is_no_pipe(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(ValueError, match="open pipe"):
        watch_parent({PARENT_FD: str(file.fileno())})


def test_a_process_leaves_with_its_parent(tree: Tree) -> None:
    process = tree.start(["-c", WATCHER.format(handler="")])
    assert first_line(process) == "ready"
    assert process.poll() is None
    tree.abandon()
    assert process.wait(PATIENCE) == -signal.SIGTERM


def test_one_that_does_not_want_to_leave_is_made_to(tree: Tree) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    process = tree.start(["-c", WATCHER.format(handler=deaf)])
    assert first_line(process) == "ready"
    tree.abandon()
    assert process.wait(PATIENCE) == 1


def test_forked_processes_leave_too(tree: Tree) -> None:
    process = tree.start(["-c", FORKING])
    pids = {int(first_line(process)), int(first_line(process))}
    assert all(map(is_alive, pids))
    tree.abandon()
    assert process.wait(PATIENCE) == -signal.SIGTERM
    assert eventually(lambda: not any(map(is_alive, pids)))


def guarded(*command: str) -> list[str]:
    return ["-m", "config.guard", *command]


def test_the_guardian_passes_on_the_exit_code(tree: Tree) -> None:
    process = tree.start(guarded("--", sys.executable, "-c", "raise SystemExit(7)"))
    assert process.wait(PATIENCE) == 7


def test_the_guardian_tells_a_signal_from_a_code(tree: Tree) -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    process = tree.start(guarded("--", sys.executable, "-c", killed))
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL


def test_a_program_that_is_not_there(tree: Tree) -> None:
    process = tree.start(guarded("--", "/nowhere/at/all"))
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 127
    assert "/nowhere/at/all" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_guardian_passes_on_signals(tree: Tree, number: signal.Signals) -> None:
    process = tree.start(guarded("--", sys.executable, "-c", SLEEPER))
    child = int(first_line(process))
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert not is_alive(child)


def test_the_guarded_leave_with_the_guardians_parent(tree: Tree) -> None:
    process = tree.start(guarded("--", sys.executable, "-c", SLEEPER))
    child = int(first_line(process))
    tree.abandon()
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert not is_alive(child)


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_the_guarded_die_with_a_killed_guardian(tree: Tree) -> None:
    process = tree.start(guarded("--", sys.executable, "-c", STUBBORN))
    child = int(first_line(process))
    assert is_alive(child)
    process.kill()
    assert eventually(lambda: not is_alive(child))


def test_one_lock_one_guardian(tree: Tree, tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    first = tree.start(guarded("--lock", lock, "--", sys.executable, "-c", SLEEPER))
    child = int(first_line(first))
    # The second waits for the first to leave, and takes over then.
    second = tree.start(guarded("--lock", lock, "--", sys.executable, "-c", SLEEPER))
    assert is_alive(child)
    first.terminate()
    assert first.wait(PATIENCE) == 128 + signal.SIGTERM
    assert int(first_line(second)) != child


FORKED = """
import os, signal
from config.parent import watch_forker
child = os.fork()
if child:
    os.waitpid(child, 0)
watch_forker(grace_seconds=0.2)
print(os.getpid(), flush=True)
signal.pause()
"""


def test_a_forked_process_leaves_with_the_one_that_forked_it(tree: Tree) -> None:
    forker = tree.start(["-c", FORKED])
    child = int(first_line(forker))
    forker.kill()
    assert eventually(lambda: not is_alive(child))


HOLDING_BACK = """
import signal, sys, threading
from config.parent import start_deaf
start_deaf(threading.Event().wait, "deaf")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("holds back", flush=True)
sys.stdin.readline()
print("still there", flush=True)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
signal.pause()
"""


def test_what_the_main_thread_holds_back_no_other_hears(tree: Tree) -> None:
    process = tree.start(["-c", HOLDING_BACK])
    assert first_line(process) == "holds back"
    process.terminate()
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert first_line(process) == "still there"
    assert process.wait(PATIENCE) == -signal.SIGTERM
