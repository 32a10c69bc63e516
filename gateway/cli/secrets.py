"""`gateway secrets`: what receivers verify callbacks with."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.command import Group
from gateway.cli.options import ENDPOINT, as_json, data_dir
from gateway.cli.output import OK, say, say_json
from gateway.cli.target import open_client


@click.group(cls=Group)
def secrets() -> None:
    """Show and change what receivers verify callbacks with; needs the scope admin."""


@secrets.command(examples=("gateway secrets show ep_00… > receiver.secret",))
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@as_json
@data_dir
def show(endpoint_id: str, as_json: bool, data_dir: Path) -> int:
    """Show the signing secret of an endpoint.

    It is alone on standard output; that it was read is noted in the gateway's log.
    """
    with open_client(data_dir) as client:
        found = client.ask("GET", f"/v1/endpoints/{endpoint_id}/secret")
    if as_json:
        say_json(found)
    else:
        say(found["secret"])
    return OK
