"""Job types for the tests of isolation: what handlers do, and what should never happen to one."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import mmap
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import Annotated, Literal, Never

from pydantic import Field

from gateway.handlers import (
    Artifact,
    FileRef,
    JobCancelled,
    JobContext,
    JobError,
    JobModel,
    job_type,
)

MEMORY = 128 * 1024**2


def _for_ever() -> Never:
    """Return for no signal that is handled."""
    while True:
        signal.pause()


class Nothing(JobModel):
    """No input."""


class Word(JobModel):
    """Any result."""

    word: str = ""


class Upload(JobModel):
    """A file to read."""

    file: FileRef


class Read(JobModel):
    """What was in a file, and a copy of it."""

    name: str
    size: int
    sha256: str
    attempt: str
    metadata: dict[str, str]
    copies: list[Artifact]


@job_type("isolated.read", timeout=30, example={"file": {"part": "a"}}, isolation="process")
def read(job: JobContext, given: Upload) -> Read:
    """Read a file, tell of it, and keep it twice."""
    job.progress(10, "Reading")
    content = job.open(given.file).read()
    job.progress(60, "Writing")
    copies = [
        job.save("bytes.bin", content, "application/octet-stream"),
        job.save("file.bin", job.open(given.file), "application/x-copy"),
    ]
    job.progress(250, "Done" * 1_000)
    return Read(
        name=job.file_info(given.file).name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        attempt=f"{job.attempt} of {job.max_attempts} of {job.id}",
        metadata={key: str(value) for key, value in job.metadata.items()},
        copies=copies,
    )


@job_type("isolated.pid", timeout=30, example={}, isolation="process")
async def pid(job: JobContext, given: Nothing) -> Word:
    """Tell the process id, from a coroutine."""
    await asyncio.sleep(0)
    return Word(word=str(os.getpid()))


class Surroundings(JobModel):
    """What a process finds itself in."""

    is_session_leader: bool
    stdin: str
    core: list[int]
    handlers: list[str]
    is_masked: bool
    descriptors: list[str]
    environment: list[str]
    temporary: list[str]


@job_type("isolated.look", timeout=30, example={}, isolation="process")
def look(job: JobContext, given: Nothing) -> Surroundings:
    """Look around."""
    import resource  # noqa: PLC0415 - not on every system

    tell = subprocess.run(["sh", "-c", "echo $TMPDIR"], capture_output=True, text=True, check=True)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    return Surroundings(
        is_session_leader=os.getsid(0) == os.getpid(),
        stdin=os.readlink("/proc/self/fd/0"),
        core=list(resource.getrlimit(resource.RLIMIT_CORE)),
        handlers=[str(signal.getsignal(number)) for number in numbers],
        is_masked=bool(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        descriptors=[name for name in os.listdir("/proc/self/fd") if int(name) > 2],
        environment=sorted(os.environ),  # noqa: TID251 - it is what the test is about
        temporary=[tempfile.gettempdir(), tell.stdout.strip()],
    )


Crash = Literal[
    "segfault",
    "abort",
    "killed",
    "exit",
    "sys.exit",
    "closed",
    "job_error",
    "unexpected",
    "cancelled",
    "wrong_result",
    "not_json",
    "huge",
    "garbage",
    "forked",
]


class Way(JobModel):
    """How to go wrong."""

    way: Crash


@job_type("isolated.fail", timeout=30, example={"way": "exit"}, isolation="process")
def fail(job: JobContext, given: Way) -> Word:  # noqa: C901, PLR0912 - a catalogue
    """Go wrong."""
    match given.way:
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit(4)
        case "closed":
            os.closerange(3, 100)
        case "job_error":
            raise JobError("The moon is full.", code="full_moon", retry=True)
        case "unexpected":
            raise LookupError("the password is swordfish")
        case "cancelled":
            raise JobCancelled
        case "wrong_result":
            return "nothing"  # type: ignore[return-value]
        case "not_json":
            return Word(word="\ud800")
        case "huge":
            return Word(word="x" * (64 * 1024**2))
        case "garbage":
            for name in os.listdir("/proc/self/fd"):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), b"\xff" * 64)
            _for_ever()
        case "forked":
            if os.fork() == 0:
                return Word(word="the copy")
            return Word(word="the original")
    return Word()


class Hang(JobModel):
    """How not to come back."""

    way: Literal["regex", "deaf", "stopped", "sleep", "cleanup", "stubborn", "deadlock", "litter"]
    path: str = ""


@job_type("isolated.hang", timeout=30, example={"way": "sleep"}, isolation="process")
def hang(job: JobContext, given: Hang) -> Word:  # noqa: C901 - a catalogue
    """Report the process id, and do not come back."""
    job.progress(1, str(os.getpid()))
    match given.way:
        case "regex":
            re.fullmatch(r"(a|a)*b", "a" * 64)  # Holds the interpreter for years.
        case "deaf":
            signal.pthread_sigmask(signal.SIG_SETMASK, set(signal.Signals) - {signal.SIGKILL})
            ctypes.PyDLL(None).sleep(600)  # Holds the interpreter as well.
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            job.sleep(600)
        case "cleanup":
            try:
                while True:
                    job.progress(2, "Still here")
            finally:
                with open(given.path, "w") as file:
                    file.write("cleaned up")
        case "stubborn":
            while True:
                try:
                    job.sleep(600)
                except JobCancelled:
                    _for_ever()
        case "litter":
            folder = tempfile.mkdtemp()
            job.progress(2, folder)
            job.sleep(600)
        case "deadlock":
            asyncio.run(asyncio.Event().wait())
    return Word(word="came back")


class Appetite(JobModel):
    """What to take too much of."""

    of: Literal["bytes", "objects", "map", "little", "c", "fault"]


@job_type(
    "isolated.eat",
    timeout=30,
    example={"of": "bytes"},
    isolation="process",
    memory_bytes=MEMORY,
)
def eat(job: JobContext, given: Appetite) -> Word:
    """Take memory, and keep something."""
    taken: object = None
    match given.of:
        case "bytes":
            taken = bytearray(2 * MEMORY)
        case "objects":
            taken = [bytes(100) for _ in range(MEMORY // 64)]
        case "map":
            taken = mmap.mmap(-1, 2 * MEMORY)
        case "c":
            if not ctypes.CDLL(None).malloc(ctypes.c_size_t(2 * MEMORY)):
                os.abort()
        case "fault":
            ctypes.string_at(0)
        case "little":
            taken = bytearray(MEMORY // 4)
            job.save("kept.bin", b"x" * 1_000_000, "application/octet-stream")
    return Word(word=str(taken is not None))


class Family(JobModel):
    """Which processes to leave behind, and how to end oneself."""

    kind: Literal["child", "daemon"]
    end: Literal["return", "crash", "hang"]
    count: Annotated[int, Field(ge=1)] = 1


_DAEMON = """
import os, signal
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
signal.pause()
"""

_CHILD = "import os, signal; print(os.getpid(), flush=True); os.close(1); signal.pause()"


@job_type(
    "isolated.breed", timeout=30, example={"kind": "child", "end": "return"}, isolation="process"
)
def breed(job: JobContext, given: Family) -> Word:
    """Start processes that stay, and tell which."""
    program = _CHILD if given.kind == "child" else _DAEMON
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(given.count)
    ]
    pids = [str(process.stdout and process.stdout.readline().strip()) for process in started]
    job.progress(1, " ".join(pids))
    match given.end:
        case "crash":
            os._exit(3)
        case "hang":
            _for_ever()
        case "return":
            pass
    return Word(word=" ".join(pids))


@job_type("isolated.thread", timeout=30, example={})
def thread(job: JobContext, given: Nothing) -> Word:
    """Run in a thread, as job types do unless they say otherwise."""
    return Word(word=str(os.getpid()))
