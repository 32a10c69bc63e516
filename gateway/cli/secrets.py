"""`gateway secrets`: what receivers verify callbacks with, and what all secrets are sealed with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from config import ids
from gateway.cli.command import CliError, Group
from gateway.cli.options import ENDPOINT, Secret, WholeNumber, as_json, data_dir
from gateway.cli.output import OK, note, say, say_json
from gateway.cli.target import open_client

_MEMBERS = {"v1": "secret", "v1a": "publicKey", "x-signature": "xSignatureSecret"}

_scheme = click.option(
    "--scheme",
    type=click.Choice(list(_MEMBERS)),
    default="v1",
    show_default=True,
    help="What it is for; of v1a the public key is shown.",
)


@click.group(cls=Group, short_help="Show and change signing secrets; seal all secrets anew")
def secrets() -> None:
    """Show and change what receivers verify callbacks with; seal what is secret anew.

    `show` and `rotate` need the scope admin.
    """


@secrets.command(
    examples=(
        "gateway secrets show ep_00… > receiver.secret",
        "gateway secrets show ep_00… --json",
    )
)
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@_scheme
@as_json
@data_dir
def show(endpoint_id: str, scheme: str, as_json: bool, data_dir: Path) -> int:
    """Show the signing secret of an endpoint.

    It is alone on standard output; that it was read is noted in the gateway's log.
    """
    with open_client(data_dir) as client:
        found = client.ask("GET", f"/v1/endpoints/{endpoint_id}/secret")
    _say(found, scheme, as_json=as_json)
    return OK


@secrets.command(
    examples=(
        "gateway secrets rotate ep_00… > receiver.secret",
        "gateway secrets rotate ep_00… --secret @receiver.secret --overlap 3600",
        "gateway secrets rotate ep_00… --scheme x-signature",
        "gateway secrets rotate ep_00… --retire",
    )
)
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@_scheme
@click.option("--secret", type=Secret(), help="One of your own, or @FILE; random unless given.")
@click.option(
    "--overlap",
    type=WholeNumber(0),
    metavar="SECONDS",
    help="How long the old one signs too (a day); 0: not at all.",
)
@click.option("--retire", is_flag=True, help="Make no new one: let the old ones sign no more.")
@as_json
@data_dir
def rotate(
    endpoint_id: str,
    scheme: str,
    secret: str | None,
    overlap: int | None,
    retire: bool,
    as_json: bool,
    data_dir: Path,
) -> int:
    """Change the signing secret of an endpoint.

    The new one is alone on standard output. Until the overlap ends the old one signs too: give the
    receiver the new one meanwhile.
    """
    given = {"scheme": scheme, "secret": secret, "overlapSeconds": overlap}
    wanted = {name: value for name, value in given.items() if value is not None}
    if retire:
        wanted["retire"] = True
    path = f"/v1/endpoints/{endpoint_id}/rotate"
    with open_client(data_dir) as client:
        found = client.ask("POST", path, wanted, idempotency_key=ids.random_text(24))
    _say(found, scheme, as_json=as_json)
    return OK


@secrets.command(
    examples=(
        "gateway secrets rewrap --dry-run",
        "gateway secrets rewrap",
        "GATEWAY_CONFIG=production.toml gateway secrets rewrap --json",
    )
)
@click.option("--dry-run", is_flag=True, help="Count what is under which key, and change nothing.")
@as_json
@data_dir
def rewrap(dry_run: bool, as_json: bool, data_dir: Path) -> int:
    """Seal everything under the first sealing key.

    Works on the store itself, with the settings that are in the environment, or else those of the
    `gateway up` that runs in the data directory. It can run beside everything else, be cut off, and
    be run again. Ends with 3 while anything is under another key.
    """
    from gateway.cli.resealing import reseal

    return asyncio.run(reseal(data_dir, dry_run=dry_run, as_json=as_json))


def _say(found: Mapping[str, Any], scheme: str, *, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    secret = found.get(_MEMBERS[scheme])
    if secret is None:
        raise CliError(f"this endpoint has no secret for {scheme}")
    for each in found.get("retiring", ()):
        if each["scheme"] == scheme:
            note(f"An old one signs too until {each['until']}.")
    say(secret)
