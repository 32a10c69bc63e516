"""A tree of real processes: started in order, restarted, stopped, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import environment
from scripts.supervise import (
    LOG_LIMIT_BYTES,
    ChildSpec,
    GiveUp,
    Restart,
    SuperviseError,
    Supervisor,
    after_death,
    last_lines,
)
from tests.processes import PATIENCE, eventually, is_alive

SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "open(sys.argv[1], 'w').close(); time.sleep(600)"
)


class FastClock:
    """Ten seconds pass in one, so that back-off is not waited for."""

    def now(self) -> int:
        return int(self.monotonic() * 1_000_000)

    def monotonic(self) -> float:
        return time.monotonic() * 10


Build = Callable[..., Supervisor]


@pytest.fixture
def reported() -> list[str]:
    return []


@pytest.fixture
def build(tmp_path: Path, reported: list[str]) -> Iterator[Build]:
    built: list[Supervisor] = []

    def build(*specs: ChildSpec, grace_seconds: float = 15.0) -> Supervisor:
        supervisor = Supervisor(
            specs,
            log_dir=tmp_path / "log",
            report=reported.append,
            clock=FastClock(),
            grace_seconds=grace_seconds,
        )
        built.append(supervisor)
        return supervisor

    yield build
    for supervisor in built:
        with supervisor:
            supervisor.interrupt()
            supervisor.interrupt()


def child(
    role: str,
    code: str,
    *arguments: str,
    stage: int = 0,
    ready: Callable[[], bool] = lambda: True,
    pass_fds: tuple[int, ...] = (),
) -> ChildSpec:
    return ChildSpec(
        role=role,
        command=[sys.executable, "-c", code, *arguments],
        environment=environment(),
        stage=stage,
        ready=ready,
        pass_fds=pass_fds,
    )


@pytest.mark.parametrize(
    ("lived", "quick_deaths", "expected"),
    [
        (0.0, 0, Restart(delay=0.2, quick_deaths=1)),
        (0.0, 1, Restart(delay=0.4, quick_deaths=2)),
        (0.0, 2, Restart(delay=0.8, quick_deaths=3)),
        (9.9, 3, Restart(delay=1.6, quick_deaths=4)),
        (9.9, 4, GiveUp(quick_deaths=5)),
        (10.0, 4, Restart(delay=0.2, quick_deaths=0)),
        (3600.0, 0, Restart(delay=0.2, quick_deaths=0)),
    ],
)
def test_after_a_death(lived: float, quick_deaths: int, expected: Restart | GiveUp) -> None:
    assert after_death(lived=lived, quick_deaths=quick_deaths) == expected


ORDERED = """
import signal, sys, time
def note(word):
    with open(sys.argv[1], "a") as file:
        print(word, sys.argv[2], file=file, flush=True)
def leave(*_):
    note("stop")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
note("start")
while True:
    time.sleep(600)
"""


def test_stages_start_in_order_and_stop_in_reverse(build: Build, tmp_path: Path) -> None:
    notes = tmp_path / "notes"

    def ordered(name: str, stage: int) -> ChildSpec:
        return child(
            name,
            ORDERED,
            str(notes),
            name,
            stage=stage,
            ready=lambda: notes.exists() and f"start {name}\n" in notes.read_text(),
        )

    supervisor = build(ordered("worker", 2), ordered("store", 0), ordered("api", 1))
    supervisor.start()
    assert set(supervisor.pids) == {"store", "api", "worker"}
    supervisor.stop()
    assert supervisor.pids == {}
    assert notes.read_text().split("\n")[:-1] == [
        "start store",
        "start api",
        "start worker",
        "stop worker",
        "stop api",
        "stop store",
    ]


def test_a_killed_child_is_started_again(build: Build, reported: list[str]) -> None:
    supervisor = build(child("relay", SLEEP), child("worker", SLEEP))
    supervisor.start()
    before = supervisor.pids
    os.kill(before["relay"], signal.SIGKILL)
    supervisor.run(until=lambda: supervisor.pids.get("relay", before["relay"]) != before["relay"])
    assert supervisor.pids["worker"] == before["worker"]
    assert reported == ["relay was killed by SIGKILL; starting it again in 0.2 s"]


FORKS = """
import os, sys, time
if os.fork():
    time.sleep(600)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""


def test_what_a_dead_child_forked_is_ended_before_its_successor(
    build: Build, tmp_path: Path
) -> None:
    place = tmp_path / "forked"
    supervisor = build(child("worker", FORKS, str(place), ready=place.exists))
    supervisor.start()
    forked = int(place.read_text())
    first = supervisor.pids["worker"]
    os.kill(first, signal.SIGKILL)
    supervisor.run(until=lambda: supervisor.pids.get("worker", first) != first)
    assert eventually(lambda: not is_alive(forked))


def test_a_child_that_cannot_start_ends_the_run_with_its_words(build: Build) -> None:
    code = "import sys; sys.exit('settings: api.port is \\x1b[31mwrong')"
    supervisor = build(child("api", code, ready=lambda: False))
    with pytest.raises(SuperviseError) as caught:
        supervisor.start()
    said = str(caught.value)
    assert said.startswith("api ended with code 1 before it was ready\n")
    assert "settings: api.port is \\x1b[31mwrong" in said
    assert "api.log" in said


def test_a_child_that_never_becomes_ready_ends_the_run(build: Build) -> None:
    spec = replace(child("api", SLEEP, ready=lambda: False), ready_seconds=2)
    with pytest.raises(SuperviseError, match="api was not ready within 2 s"):
        build(spec).start()


def test_a_program_that_is_not_there_ends_the_run(build: Build) -> None:
    spec = ChildSpec(role="api", command=["/nowhere"], environment={}, stage=0)
    with pytest.raises(SuperviseError, match=r"cannot start api: .*No such file"):
        build(spec).start()


def test_a_child_that_keeps_dying_ends_the_run(build: Build, reported: list[str]) -> None:
    supervisor = build(child("relay", "import sys; sys.exit('no luck')"))
    supervisor.start()
    with pytest.raises(
        SuperviseError, match=r"relay ended with code 1, 5 times in a row\n.*no luc"
    ):
        supervisor.run()
    assert [line.rpartition(" in ")[2] for line in reported] == ["0.2 s", "0.4 s", "0.8 s", "1.6 s"]


def test_a_child_that_will_not_stop_is_killed(
    build: Build, reported: list[str], tmp_path: Path
) -> None:
    deaf = tmp_path / "deaf"
    supervisor = build(child("worker", STUBBORN, str(deaf), ready=deaf.exists), grace_seconds=1)
    supervisor.start()
    pid = supervisor.pids["worker"]
    supervisor.stop()
    assert not is_alive(pid)
    assert reported == ["worker did not stop in time and was killed"]


def test_the_second_interrupt_waits_for_nobody(build: Build, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    supervisor = build(child("worker", STUBBORN, str(deaf), ready=deaf.exists), grace_seconds=1e9)
    supervisor.start()
    pid = supervisor.pids["worker"]
    supervisor.interrupt()
    supervisor.interrupt()
    supervisor.stop()
    assert not is_alive(pid)


ANSWERING = """
import os, socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""


def test_a_restart_refuses_no_connection(build: Build) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> int:
            with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as connection:
                return int(connection.recv(100))

        descriptor = listener.fileno()
        supervisor = build(child("api", ANSWERING, str(descriptor), pass_fds=(descriptor,)))
        supervisor.start()
        first = supervisor.pids["api"]
        assert answer() == first
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: not is_alive(first))
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as connection:
            supervisor.run(until=lambda: supervisor.pids.get("api", first) != first)
            assert int(connection.recv(100)) == supervisor.pids["api"]


def test_a_log_stays_bounded(build: Build, tmp_path: Path) -> None:
    log = tmp_path / "log" / "worker.log"
    size = LOG_LIMIT_BYTES + 1
    code = f"import time; print('x' * {size}, flush=True); time.sleep(600)"
    supervisor = build(child("worker", code))
    supervisor.start()
    supervisor.run(until=(tmp_path / "log" / "worker.log.1").exists)
    supervisor.stop()
    assert (tmp_path / "log" / "worker.log.1").stat().st_size > LOG_LIMIT_BYTES
    assert log.stat().st_size < LOG_LIMIT_BYTES


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n\x1b[2Jthree \xff\n")
    assert last_lines(log, 2) == ["two", "\\x1b[2Jthree \ufffd"]
    assert last_lines(tmp_path / "none") == []


PROGRAM = """
import sys
from pathlib import Path
from config.settings import environment
from scripts.supervise import ChildSpec, Supervisor, interrupted_by_signals

sleep = "import time; time.sleep(600)"
watching = "from config.parent import watch_parent; watch_parent(); " + sleep
forking = "import os; from config.parent import watch_parent; os.fork(); watch_parent(); " + sleep
commands = {
    "guarded": [sys.executable, "-m", "config.guard", "--", sys.executable, "-c", sleep],
    "watching": [sys.executable, "-c", watching],
    "forking": [sys.executable, "-c", forking],
}
specs = [
    ChildSpec(role=role, command=command, environment=environment(), stage=0)
    for role, command in commands.items()
]
supervisor = Supervisor(specs, log_dir=Path(sys.argv[1]))
with interrupted_by_signals(supervisor), supervisor:
    supervisor.start()
    print(*supervisor.pids.values(), flush=True)
    supervisor.run()
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def sessions_of(leaders: set[int]) -> set[int]:
    """Every live process in the sessions that `leaders` began."""
    listed = subprocess.run(
        ["ps", "-e", "-o", "pid=,sess=,stat="], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in listed.stdout.splitlines())
    return {int(pid) for pid, session, state in rows if int(session) in leaders and state[0] != "Z"}


def started(program: subprocess.Popen[str]) -> set[int]:
    assert program.stdout is not None
    leaders = {int(pid) for pid in program.stdout.readline().split()}
    assert len(leaders) == 3
    # Three leaders, what the guardian guards, and the fork.
    assert eventually(lambda: len(sessions_of(leaders)) == 5)
    return leaders


def test_a_killed_supervisor_leaves_nobody(program: subprocess.Popen[str]) -> None:
    leaders = started(program)
    program.kill()
    assert program.wait(PATIENCE) == -signal.SIGKILL
    assert eventually(lambda: sessions_of(leaders) == set())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_in_order(
    program: subprocess.Popen[str], number: signal.Signals
) -> None:
    leaders = started(program)
    program.send_signal(number)
    assert program.wait(PATIENCE) == 0
    assert sessions_of(leaders) == set()
