"""`gateway keys`: API keys, made, listed and revoked, over the API of a running gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from gateway.cli.command import Group
from gateway.cli.options import Identifier, as_json, data_dir
from gateway.cli.output import OK, done_of, note, say, say_all, say_json
from gateway.cli.target import open_client

if TYPE_CHECKING:
    from gateway.client import Client

_KEYS = "/v1/admin/keys"
_MAX_PAGES = 10_000
_COLUMNS = {"KEY": 28, "TENANT": 16, "SCOPES": 28, "CREATED": 24, "EXPIRES": 24, "NAME": 20}
_KEY = Identifier("key", "key")


@click.group(cls=Group, short_help="Make, list and revoke API keys")
def keys() -> None:
    """Make, list and revoke API keys; the key that asks needs the scope admin."""


@keys.command(
    examples=(
        """gateway keys create --scope submit --scope read --tenant acme --name "Acme's site\"""",
        "KEY=$(gateway keys create --scope read --expires 2035-01-31T12:00:00Z)",
    )
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["admin", "operate", "read", "submit"]),
    multiple=True,
    required=True,
    help="What its holder may do; may be repeated.",
)
@click.option("--tenant", help="Whose objects it reaches; that of the asking key unless given.")
@click.option("--name", help="What people call it.")
@click.option("--expires", metavar="TIME", help="Such as 2030-01-31T12:00:00Z; never unless given.")
@as_json
@data_dir
def create(
    scopes: tuple[str, ...],
    tenant: str | None,
    name: str | None,
    expires: str | None,
    as_json: bool,
    data_dir: Path,
) -> int:
    """Make a key. It is shown this once: alone on standard output."""
    wanted = {
        "scopes": sorted(set(scopes)),
        "tenant": tenant,
        "name": name,
        "expiresAt": expires,
    }
    given = {member: value for member, value in wanted.items() if value is not None}
    with open_client(data_dir) as client:
        made = client.ask("POST", _KEYS, given)
    if as_json:
        say_json(made)
        return OK
    note(f"{made['id']}, for {made['tenant']}. The key, shown this once:")
    say(made["key"])
    return OK


@keys.command("list", examples=("gateway keys list", "gateway keys list --tenant acme --json"))
@click.option("--tenant", help="Only this one's.")
@as_json
@data_dir
def list_(tenant: str | None, as_json: bool, data_dir: Path) -> int:
    """List the keys that were made, oldest first."""
    with open_client(data_dir) as client:
        count = say_all(_every(client, tenant), _COLUMNS, _cells, as_json=as_json)
    if not count:
        note("No keys were made.")
    return OK


@keys.command(examples=("gateway keys revoke key_00…",))
@click.argument("key_ids", metavar="KEY...", type=_KEY, nargs=-1, required=True)
@as_json
@data_dir
def revoke(key_ids: tuple[str, ...], as_json: bool, data_dir: Path) -> int:
    """Have keys refused, within a second or so."""
    from gateway.client import ProblemError

    done = 0
    with open_client(data_dir) as client:
        for key_id in key_ids:
            try:
                client.ask("DELETE", f"{_KEYS}/{key_id}")
            except ProblemError as error:
                if error.status != 404:
                    raise
                note(f"there is no key {key_id}")
                continue
            done += 1
            if as_json:
                say_json({"revoked": key_id})
            else:
                say(f"{key_id} revoked")
    return done_of(done, len(key_ids))


def _every(client: Client, tenant: str | None) -> Iterator[Mapping[str, Any]]:
    query = {} if tenant is None else {"tenant": tenant}
    for _ in range(_MAX_PAGES):
        page = client.ask("GET", f"{_KEYS}?{urlencode(query)}")
        yield from page["items"]
        if page["nextCursor"] is None:
            return
        query["cursor"] = page["nextCursor"]


def _cells(key: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        key["id"],
        key["tenant"],
        ",".join(key["scopes"]),
        key["createdAt"],
        key["expiresAt"],
        key["name"],
    )
