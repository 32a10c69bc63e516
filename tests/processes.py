"""Looking at real processes from a test."""

import subprocess
import time
from collections.abc import Callable
from typing import Final

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
