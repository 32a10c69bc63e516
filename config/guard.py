"""A guardian for programs that cannot watch a pipe: `python -m config.guard [--lock FILE] -- CMD…`.

Runs CMD as its child and shares its fate: SIGTERM and SIGINT are passed on as SIGTERM, a parent
that is gone (see `config.parent`) ends it, its exit code becomes the guardian's. On Linux the
kernel kills the child when the guardian is killed. Standard library only, to start quickly.
"""

import argparse
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from config.parent import watch_parent

LOCK_PATIENCE_SECONDS: Final = 15.0
"""How long a predecessor may take to leave before FILE counts as held by somebody else."""

_PR_SET_PDEATHSIG: Final = 1


def main(argv: Sequence[str]) -> int:
    """Run the command to its end and return its exit code, 128 + n when signal n ended it."""
    parser = argparse.ArgumentParser(prog="python -m config.guard", description=__doc__)
    parser.add_argument("--lock", type=Path, metavar="FILE", help="held as long as CMD runs")
    parser.add_argument("command", nargs="+", metavar="CMD")
    options = parser.parse_args(argv)

    kept: tuple[int, ...] = ()
    if options.lock is not None:
        descriptor = _locked(options.lock)
        if descriptor is None:
            print(f"{options.lock.parent} is in use by another process", file=sys.stderr)
            return 1
        kept = (descriptor,)
    try:
        child = subprocess.Popen(  # noqa: S603
            options.command,
            stdin=subprocess.DEVNULL,
            pass_fds=kept,
            preexec_fn=_die_together(),  # noqa: PLW1509  there is no other thread yet
        )
    except OSError as error:
        print(f"cannot run {options.command[0]}: {error.strerror}", file=sys.stderr)
        return 127

    def pass_on(_signal: int, _frame: FrameType | None) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    watch_parent(at_last=child.kill)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _locked(path: Path) -> int | None:
    """A descriptor that holds `path` locked; the child inherits it and holds the lock as well."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)
        else:
            return descriptor


def _die_together() -> Callable[[], None] | None:
    """What the child does before it becomes CMD, where the system has parent-death signals."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    guardian = os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:
            os._exit(1)

    return prepare


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
