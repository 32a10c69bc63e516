#!/usr/bin/env python3
"""API keys: made, listed and revoked, over the API of a running gateway.

    ./scripts/keys.py create --scope submit --scope read --tenant acme --name "Acme's site"
    ./scripts/keys.py list
    ./scripts/keys.py revoke key_00…

Asks the gateway at GATEWAY_API_URL with the key GATEWAY_API_KEY, which needs the scope admin; where
they are not set, the one that `./scripts/up` runs, found by its data directory. A key is shown when
it is made and never again: on standard output, alone on its line. Exit codes: 0 done, 1 error, 2
wrong usage, 3 partly done.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_VENV_PYTHON = ROOT / ".venv" / "bin" / "python"

if __name__ == "__main__" and _VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    # Run by whatever python3 is first on the path: go on in the one that has the libraries.
    os.execv(_VENV_PYTHON, [str(_VENV_PYTHON), "-P", __file__, *sys.argv[1:]])  # noqa: S606

import httpx  # noqa: E402

from config.settings import environment  # noqa: E402
from gateway.auth import SCOPES  # noqa: E402
from scripts.letters import FAILED, OK, PARTLY, ScriptError, printable, row  # noqa: E402

_KEYS = "/v1/admin/keys"
_TIMEOUT_SECONDS = 30
_MAX_PAGES = 10_000
_WIDTHS = (28, 16, 28, 24, 24, 20)


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = _parse(argv)
    try:
        with _client(options.data_dir) as client:
            match options.command:
                case "create":
                    return _create(client, options)
                case "list":
                    return _list(client, options)
                case _:
                    return _revoke(client, options)
    except (ScriptError, httpx.HTTPError, httpx.InvalidURL) as error:
        print(f"keys: {printable(str(error))}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="keys.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="for programs: one JSON object a line")
    common.add_argument(
        "--data-dir", type=Path, default=ROOT / ".data", metavar="DIR", help="of ./scripts/up"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create = commands.add_parser("create", parents=[common], help="make a key and show it")
    create.add_argument(
        "--scope", choices=sorted(SCOPES), action="append", required=True, help="may be repeated"
    )
    create.add_argument("--tenant", help="whose objects it reaches (that of the asking key)")
    create.add_argument("--name", help="what people call it")
    create.add_argument("--expires", metavar="TIME", help="such as 2030-01-31T12:00:00Z (never)")
    listing = commands.add_parser("list", parents=[common], help="every key, oldest first")
    listing.add_argument("--tenant", help="only this one's")
    revoke = commands.add_parser("revoke", parents=[common], help="have keys refused from now on")
    revoke.add_argument("ids", nargs="+", metavar="ID")
    return parser.parse_args(argv)


def _client(data_dir: Path) -> httpx.Client:
    environ = environment()
    url, key = environ.get("GATEWAY_API_URL", ""), environ.get("GATEWAY_API_KEY", "")
    try:
        if not url:
            record: dict[str, Any] = json.loads((data_dir / "run.json").read_text("utf-8"))
            url = record["apiUrl"]
        if not key:
            key = (data_dir / "api.key").read_text("ascii").strip()
    except (OSError, ValueError, KeyError) as error:
        raise ScriptError(
            f"no gateway runs in {data_dir}, and GATEWAY_API_URL and GATEWAY_API_KEY do not name"
            " one"
        ) from error
    return httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT_SECONDS
    )


def _create(client: httpx.Client, options: argparse.Namespace) -> int:
    wanted = {
        "scopes": sorted(set(options.scope)),
        "tenant": options.tenant,
        "name": options.name,
        "expiresAt": options.expires,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    made = _answer(client.post(_KEYS, json=given))
    if options.json:
        print(json.dumps(made))
        return OK
    print(f"{made['id']}, for {made['tenant']}. The key, shown this once:", file=sys.stderr)
    print(made["key"])
    return OK


def _list(client: httpx.Client, options: argparse.Namespace) -> int:
    shown = 0
    for key in _every(client, options.tenant):
        if options.json:
            print(json.dumps(key))
        else:
            if shown == 0:
                print(row(("KEY", "TENANT", "SCOPES", "CREATED", "EXPIRES", "NAME"), _WIDTHS))
            print(_listed(key))
        shown += 1
    if shown == 0 and not options.json:
        print("No keys were made.")
    return OK


def _every(client: httpx.Client, tenant: str | None) -> Iterator[dict[str, Any]]:
    query = {} if tenant is None else {"tenant": tenant}
    for _ in range(_MAX_PAGES):
        page = _answer(client.get(_KEYS, params=query))
        yield from page["items"]
        if page["nextCursor"] is None:
            return
        query["cursor"] = page["nextCursor"]


def _revoke(client: httpx.Client, options: argparse.Namespace) -> int:
    revoked = 0
    for key_id in options.ids:
        answer = client.delete(f"{_KEYS}/{key_id}") if _is_plain(key_id) else None
        if answer is None or answer.status_code == 404:
            print(f"keys: there is no key {printable(key_id)}", file=sys.stderr)
            continue
        _answer(answer)
        revoked += 1
        print(json.dumps({"revoked": key_id}) if options.json else f"{key_id} revoked")
    if revoked == len(options.ids):
        return OK
    return PARTLY if revoked else FAILED


def _is_plain(identifier: str) -> bool:
    return identifier.isascii() and identifier.replace("_", "").isalnum()


def _answer(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code == 204:
        return {}
    try:
        body: dict[str, Any] = answer.json()
    except ValueError:
        raise ScriptError(f"{answer.url.host} is no gateway: it answered without JSON") from None
    if answer.is_success:
        return body
    raise ScriptError(f"the gateway refused: {body.get('detail') or answer.status_code}")


def _listed(key: dict[str, Any]) -> str:
    cells = (
        key["id"],
        key["tenant"],
        ",".join(key["scopes"]),
        key["createdAt"][:19] + "Z",
        (key["expiresAt"] or "-")[:20],
        printable(key["name"] or "-"),
    )
    return row(cells, _WIDTHS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
