"""`python -m delivery`: one delivery process, as the settings say, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys

import uvloop

from config import log
from config.errors import StoreError
from config.parent import watch_parent
from config.ports import AdminPortError
from config.settings import SettingsError, environment, load_settings
from delivery.errors import DeliveryError
from delivery.process import run

_GARBAGE = (20_000, 50, 50)
"""How many more objects start a collection. An attempt makes many and leaves none in a circle: by
default, those of all attempts under way would be looked through after every few.
"""


def main() -> int:
    """Read the command line, which has nothing to say, and run."""
    argparse.ArgumentParser(prog="python -m delivery", description=__doc__).parse_args()
    return run_here()


def run_here() -> int:
    """Run and return the exit code: 0 stopped in order, 1 could not start, 2 unusable settings."""
    try:
        settings = load_settings(environment())
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    log.configure("delivery")
    watch_parent()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    try:
        uvloop.run(run(settings))
    except (AdminPortError, StoreError, DeliveryError) as error:
        sys.stderr.write(f"delivery: {error}\n")
        return 1
    except asyncio.CancelledError:
        logging.getLogger("delivery").info("process.stopped_while_starting")
    return 0


if __name__ == "__main__":
    sys.exit(main())
