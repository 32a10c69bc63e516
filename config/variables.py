"""What a process is given: variables that libraries read, where modules are found, its limits."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path


def environment() -> dict[str, str]:
    """Return a copy of this process's environment."""
    return dict(os.environ)


def preset(**variables: str) -> None:
    """Set variables that are not set yet; before importing the library that reads them."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def import_from(folders: Iterable[Path]) -> None:
    """Let modules be found in `folders` too, after everything that is found without them."""
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path]


def allow_open_files(wanted: int) -> int:
    """Raise this process's limit of open files towards `wanted`; return what it may now have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    return max(soft, allowed)
