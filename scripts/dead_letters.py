#!/usr/bin/env python3
"""Dead letters: what could not be delivered or done, why, and trying it again.

    ./scripts/dead_letters.py list
    ./scripts/dead_letters.py show msg_00…
    ./scripts/dead_letters.py replay msg_00… msg_00…
    ./scripts/dead_letters.py replay --all

With --kind job they are jobs that failed, job_00…, and a replay is a new job from the same input.
Works on the store of a running `./scripts/up` (found by its data directory), or on the one that
GATEWAY_STORE_URL names. Exit codes: 0 done, 1 error, 2 wrong usage, 3 partly done.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_VENV_PYTHON = ROOT / ".venv" / "bin" / "python"

if __name__ == "__main__" and _VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    # Run by whatever python3 is first on the path: go on in the one that has the libraries.
    os.execv(_VENV_PYTHON, [str(_VENV_PYTHON), "-P", __file__, *sys.argv[1:]])  # noqa: S606

from config.clock import rfc3339  # noqa: E402
from config.ids import is_id  # noqa: E402
from config.settings import draft_settings, environment  # noqa: E402
from config.store import Store, StoreError, connect, kept_partitions  # noqa: E402
from delivery.deadletters import replay, walk  # noqa: E402
from delivery.models import Delivery  # noqa: E402
from delivery.store import DeliveryStore  # noqa: E402
from scripts.dead_jobs import list_jobs, replay_jobs, show_job  # noqa: E402
from scripts.letters import FAILED, OK, PARTLY, ScriptError, printable, row, say_end  # noqa: E402

_PREFIXES = {"delivery": "msg", "job": "job"}
_WIDTHS = (28, 20, 23, 8, 4, 32, 28)


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = _parse(argv)
    try:
        return asyncio.run(_run(options))
    except (ScriptError, StoreError) as error:
        print(f"dead_letters: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dead_letters.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--kind", choices=sorted(_PREFIXES), default="delivery", help="of dead letter (delivery)"
    )
    common.add_argument("--json", action="store_true", help="for programs: one JSON object a line")
    common.add_argument(
        "--data-dir", type=Path, default=ROOT / ".data", metavar="DIR", help="of ./scripts/up"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", parents=[common], help="every dead letter, oldest first")
    listing.add_argument("--limit", type=_count, default=100, help="at most so many (100)")
    show = commands.add_parser("show", parents=[common], help="one, with its attempts")
    show.add_argument("id")
    again = commands.add_parser("replay", parents=[common], help="send or run again")
    scope = again.add_mutually_exclusive_group(required=True)
    scope.add_argument("ids", nargs="*", default=[], metavar="ID")
    scope.add_argument("--all", action="store_true", help="every dead letter there is now")
    options = parser.parse_args(argv)
    for identifier in [options.id] if options.command == "show" else getattr(options, "ids", []):
        _check_identifier(identifier, options.kind, parser)
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _check_identifier(text: str, kind: str, parser: argparse.ArgumentParser) -> None:
    if not is_id(_PREFIXES[kind], text):
        parser.error(f"{text!r} is not a {kind}: one looks like {_PREFIXES[kind]}_00…")


async def _run(options: argparse.Namespace) -> int:
    store = connect(_store_url(options.data_dir), max_connections=4, socket_timeout=10)
    try:
        partitions = await _partitions(store)
        if options.kind == "job":
            return await _run_on_jobs(store, partitions, options)
        deliveries = DeliveryStore(store, partitions)
        match options.command:
            case "list":
                return await _list(deliveries, options)
            case "show":
                return await _show(deliveries, options)
            case _:
                return await _replay(deliveries, options)
    finally:
        await store.close()


async def _run_on_jobs(store: Store, partitions: int, options: argparse.Namespace) -> int:
    match options.command:
        case "list":
            return await list_jobs(store, partitions, limit=options.limit, as_json=options.json)
        case "show":
            return await show_job(store, partitions, options.id, as_json=options.json)
        case _:
            return await replay_jobs(
                store,
                partitions,
                None if options.all else options.ids,
                data_dir=options.data_dir,
                as_json=options.json,
            )


def _store_url(data_dir: Path) -> str:
    if url := draft_settings(environment()).text("store", "url"):
        return url
    record = data_dir / "run.json"
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["storeUrl"])
    except FileNotFoundError:
        raise ScriptError(
            f"nothing runs in {data_dir}: start ./scripts/up, name its --data-dir, "
            "or set GATEWAY_STORE_URL"
        ) from None


async def _partitions(store: Store) -> int:
    partitions = await kept_partitions(store)
    if partitions is None:
        raise ScriptError("this store was never used by the gateway")
    return partitions


async def _list(deliveries: DeliveryStore, options: argparse.Namespace) -> int:
    shown = 0
    more = False
    async for letter in walk(deliveries):
        if shown == options.limit:
            more = True
            break
        if options.json:
            print(json.dumps(_summary(letter)))
        else:
            if shown == 0:
                cells = ("DELIVERY", "DIED", "REASON", "ATTEMPTS", "LAST", "ENDPOINT", "JOB")
                print(row(cells, _WIDTHS))
            print(_listed(letter))
        shown += 1
    if not options.json:
        say_end(shown, more=more)
    return OK


def _listed(letter: Delivery) -> str:
    cells = (
        letter.id,
        rfc3339(letter.ended_at or 0)[:19] + "Z",
        letter.reason or "",
        str(letter.attempts),
        str(letter.last_status or "-"),
        letter.origin,
        str(letter.tags.get("jobId", "-")),
    )
    return row(cells, _WIDTHS)


def _summary(letter: Delivery) -> dict[str, Any]:
    return {
        "deliveryId": letter.id,
        "state": letter.state,
        "reason": letter.reason,
        "endpointId": letter.endpoint,
        "origin": letter.origin,
        "tenant": letter.tenant,
        "createdAt": rfc3339(letter.created_at),
        "endedAt": rfc3339(letter.ended_at) if letter.ended_at else None,
        "nextAttemptAt": rfc3339(letter.next_attempt_at) if letter.next_attempt_at else None,
        "attempts": letter.attempts,
        "lastStatusCode": letter.last_status,
        "tags": letter.tags,
    }


async def _show(deliveries: DeliveryStore, options: argparse.Namespace) -> int:
    letter = await deliveries.read(options.id)
    if letter is None:
        raise ScriptError(f"there is no delivery {options.id}")
    body = (await deliveries.read_body(options.id) or b"").decode("utf-8", "replace")
    if options.json:
        print(json.dumps({**_summary(letter), "history": letter.history, "body": body}))
        return OK
    for name, value in _summary(letter).items():
        if value not in (None, {}):
            shown = json.dumps(value) if isinstance(value, dict) else value
            print(f"{name:15} {shown}")
    print(f"\nattempts (the last {len(letter.history)})")
    for attempt in letter.history:
        print(f"  {_attempt(attempt)}")
    print(f"\nbody\n  {printable(body)}")
    return OK


def _attempt(attempt: dict[str, Any]) -> str:
    parts = [
        f"{attempt['number']:>3}",
        str(attempt.get("at", "-")),
        str(attempt.get("outcome", "-")),
        str(attempt.get("statusCode", "")),
        f"{attempt['durationMs']} ms" if "durationMs" in attempt else "",
        printable(str(attempt.get("answer", ""))),
    ]
    return "  ".join(part for part in parts if part)


async def _replay(deliveries: DeliveryStore, options: argparse.Namespace) -> int:
    ids = [letter.id async for letter in walk(deliveries)] if options.all else options.ids
    done = await replay(deliveries, ids)
    if options.json:
        print(
            json.dumps({"replayed": done.pending, "skipped": done.skipped, "unknown": done.unknown})
        )
    else:
        print(f"{len(done.pending)} replayed")
        for identifier, state in done.skipped.items():
            print(f"{identifier} is {state}: left alone", file=sys.stderr)
        for identifier in done.unknown:
            print(f"{identifier} is unknown", file=sys.stderr)
    if done.is_complete:
        return OK
    return PARTLY if done.pending else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
