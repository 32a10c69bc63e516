"""A folder that the processes of one role count in together, gone with the process that made it.

prometheus-client looks for its name in the environment when it is imported, and counts in files of
it from then on. What a killed run left behind is removed by the next one: whoever holds a folder
holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder."""

_PREFIX: Final = "gateway-metrics-"
_LOCK: Final = "lock"


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Make the folder, and name it to this process and its children, inside the block."""
    _remove_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    before = os.environ.get(FOLDER)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.environ[FOLDER] = str(folder)
        yield folder
    finally:
        if before is None:
            os.environ.pop(FOLDER, None)
        else:
            os.environ[FOLDER] = before
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
