"""The admin port of the worker role: one, however many processes Dramatiq forks.

Those count in files of a folder that they share (the multiprocess mode of prometheus-client), and
note there that they live and whether they stop. A process of its own reads the folder and answers:
it is started by the one that becomes Dramatiq's parent, before that forks, and goes with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvloop

from config import log
from config.parent import PARENT_FD, start_deaf, watch_parent
from config.ports import open_listener
from config.settings import Settings, environment, load_settings
from config.sharedfiles import FOLDER, shared_folder

_log = logging.getLogger("gateway.workeradmin")

_STOP_SECONDS = 5.0


@contextmanager
def worker_admin(settings: Settings) -> Iterator[None]:
    """Answer on the worker's admin port inside the block, where the settings want one.

    To be entered before anything is imported that counts.

    Raises:
        AdminPortError: the port cannot be opened.
    """
    listener = open_listener(settings.admin, "worker")
    if listener is None:
        yield
        return
    with shared_folder():
        read_end, write_end = os.pipe()
        try:
            descriptor = listener.fileno()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gateway.workeradmin"],
                env=environment() | {PARENT_FD: str(read_end), "GATEWAY_ADMIN_FD": str(descriptor)},
                stdin=subprocess.DEVNULL,
                pass_fds=(read_end, descriptor),
            )
            # Held by nobody else, so that connections are refused once it is gone.
            listener.close()
            stopping = threading.Event()
            start_deaf(partial(_watch, process, stopping), "admin-watch")
            try:
                yield
            finally:
                stopping.set()
                _end(process)
        finally:
            os.close(read_end)
            os.close(write_end)


def _watch(process: subprocess.Popen[bytes], stopping: threading.Event) -> None:
    """Leave service when the admin port is gone: whoever started this starts both anew."""
    code = process.wait()
    if not stopping.is_set():
        _log.critical("worker.admin_ended", extra={"code": code})
        os.kill(os.getpid(), signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def main() -> int:
    """Answer until SIGTERM."""
    log.configure("worker")
    watch_parent()
    try:
        uvloop.run(_serve(load_settings(environment())))
    except asyncio.CancelledError:
        return 0
    return 0


async def _serve(settings: Settings) -> None:
    from config.admin import admin_port  # noqa: PLC0415  counting begins with its import
    from config.clock import SystemClock  # noqa: PLC0415
    from config.metrics import Page  # noqa: PLC0415
    from delivery.configure import connect_store  # noqa: PLC0415
    from gateway.vitals import SharedHealth, shared_registry  # noqa: PLC0415

    folder = Path(environment()[FOLDER])
    store = connect_store(settings)
    registry = shared_registry(folder)
    health = SharedHealth(store, SystemClock(), registry, processes=settings.worker.processes)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        async with admin_port(settings.admin, "worker", health, Page(registry)):
            await stopped.wait()
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
