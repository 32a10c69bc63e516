"""Looking at real processes from a test."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import pytest

from config.settings import environment

PATIENCE: Final = 20.0
"""Seconds until something that should happen at once counts as not happening."""


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether `condition` comes true; asks often, gives up after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has reaped yet does not."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state = found.stdout.strip()
    return state != "" and not state.startswith("Z")


def program(name: str, purpose: str) -> str:
    """Return the path of a program; a test that misses it fails in CI and is skipped elsewhere."""
    found = shutil.which(name)
    if found is None:
        missing(f"there is no `{name}` on the PATH to run {purpose} with")
    return found


def missing(reason: str) -> NoReturn:
    """End a test for want of a tool: a failure in CI, and elsewhere skipped."""
    if environment().get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def resident_bytes(pid: int) -> int:
    """Return how much memory the process holds."""
    said = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(said.stdout) * 1024


def peak_bytes(pid: int) -> int:
    """Return the most memory that the process held so far."""
    said = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB$", said, re.MULTILINE)
    return int(peak) * 1024
