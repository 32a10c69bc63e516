#!/usr/bin/env python3
"""Sealing keys: what is sealed under which one, and sealing all of it under the first.

    ./scripts/seal.py status
    ./scripts/seal.py rewrap

Works on the store of a running `./scripts/up`, with its keys (found by its data directory), or on
the one that GATEWAY_STORE_URL or the settings' file names, with the keys named there. Exit codes: 0
done, and for both that all is under the first key; 1 error; 2 wrong usage; 3 something is under
another key.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_VENV_PYTHON = ROOT / ".venv" / "bin" / "python"

if __name__ == "__main__" and _VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    # Run by whatever python3 is first on the path: go on in the one that has the libraries.
    os.execv(_VENV_PYTHON, [str(_VENV_PYTHON), "-P", __file__, *sys.argv[1:]])  # noqa: S606

from config.clock import StoreClock, SystemClock  # noqa: E402
from config.settings import Settings, SettingsError, load_settings  # noqa: E402
from config.store import Store, StoreError, kept_partitions  # noqa: E402
from delivery.configure import connect_store, key_ring  # noqa: E402
from delivery.errors import SealError  # noqa: E402
from delivery.rewrap import Rewrapped, Tally, rewrap, tally  # noqa: E402
from delivery.sealing import KeyRing  # noqa: E402
from gateway.audit import AuditLog  # noqa: E402
from gateway.cli.command import CliError  # noqa: E402
from gateway.cli.installed import installed  # noqa: E402
from gateway.cli.output import FAILED, OK, PARTLY, row  # noqa: E402
from gateway.rewrap import SEALED  # noqa: E402

_WIDTHS = (20, 34, 12, 20)


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = _parse(argv)
    try:
        return asyncio.run(_run(options))
    except (CliError, SettingsError, StoreError, SealError) as error:
        print(f"seal: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="seal.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="for programs: one JSON object")
    common.add_argument(
        "--data-dir", type=Path, default=ROOT / ".data", metavar="DIR", help="of ./scripts/up"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", parents=[common], help="how much is sealed under which key")
    commands.add_parser("rewrap", parents=[common], help="seal all of it under the first key")
    return parser.parse_args(argv)


async def _run(options: argparse.Namespace) -> int:
    settings = load_settings(installed(options.data_dir))
    ring = key_ring(settings)
    store = connect_store(settings)
    try:
        if await kept_partitions(store) is None:
            raise CliError("this store was never used by the gateway")
        done = await _rewrap(store, settings, ring) if options.command == "rewrap" else None
        kept = await tally(store, SEALED)
    finally:
        await store.close()
    _say(kept, ring, done, as_json=options.json)
    others = {kid for counts in kept.values() for kid in counts} - {ring.first}
    return PARTLY if others else OK


async def _rewrap(store: Store, settings: Settings, ring: KeyRing) -> Rewrapped:
    audit = AuditLog(store, StoreClock(SystemClock()), settings.api)
    await audit.record_local("sealing.rewrap", ring.first)
    return await rewrap(store, ring, SEALED)


def _say(kept: Tally, ring: KeyRing, done: Rewrapped | None, *, as_json: bool) -> None:
    if as_json:
        said = {"first": ring.first, "sealed": kept}
        print(json.dumps(said if done is None else {**said, **asdict(done)}))
        return
    print(row(("SEALED", "UNDER", "VALUES", "THE KEY"), _WIDTHS))
    for noun, counts in kept.items():
        for kid, count in sorted(counts.items()) or [("-", 0)]:
            print(row((noun, kid, str(count), _place(kid, ring)), _WIDTHS))
    if done is not None:
        print(f"{done.rewrapped} sealed anew")
    if done is not None and done.unreadable:
        rows = ", ".join(done.named)
        print(f"seal: {done.unreadable} cannot be opened, of {rows}", file=sys.stderr)


def _place(kid: str, ring: KeyRing) -> str:
    if kid == ring.first:
        return "is the first"
    return "can be opened" if kid in ring.ids else "is missing"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
