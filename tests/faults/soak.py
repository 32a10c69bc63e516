"""The ledger at length: `./scripts/soak`."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.faults.ledger import SETTINGS, Ledger
from tests.running import running


def main(argv: Sequence[str]) -> int:
    """Run and return the exit code: 0 when nothing was missing."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Starts a gateway, submits jobs while its processes and stores are "
        "killed at random, and then accounts for every job: each ended once, as it should, every "
        "callback that is owed was delivered or is dead, none is missing. The gateway's files and "
        "logs stay where the first line says when something is.",
    )
    parser.add_argument("--jobs", type=int, default=2_000, help="how many jobs (2000)")
    parser.add_argument("--kills", type=int, default=60, help="how many kills, one by one (60)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (1)")
    parser.add_argument(
        "--patience", type=float, default=300, help="seconds for all to end after the last kill"
    )
    given = parser.parse_args(argv)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    _say(f"in {folder}")
    began = time.monotonic()
    with running(folder / "data", SETTINGS) as gateway:
        ledger = Ledger(gateway, seed=given.seed, record=str(folder / "record"))
        with ledger.receivers.listening():
            ledger.run(jobs=given.jobs, kills=given.kills)
            _say(f"{len(ledger.entries)} jobs accepted, killed {dict(Counter(ledger.kills))}")
            documents = ledger.settle(patience=given.patience)
        faults = ledger.faults(documents)
    ends = Counter(document["status"] for document in documents)
    callbacks = Counter(
        document["callback"]["status"] for document in documents if document["callback"]
    )
    again = sum(document["attempt"] > 1 for document in documents)
    _say(f"jobs {dict(ends)}, {again} of them attempted more than once")
    _say(f"callbacks {dict(callbacks)}")
    for fault in faults:
        _say(f"FAULT {fault}")
    _say(f"{len(faults)} faults after {time.monotonic() - began:.0f} s, seed {given.seed}")
    return 1 if faults else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
