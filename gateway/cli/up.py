"""`gateway up`: everything on this machine.

What runs it comes with a checkout, like the demonstration and its sample: an installation runs the
processes one by one, under whatever watches over processes there.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from gateway.cli.command import CliError, Command
from gateway.cli.options import WholeNumber, checkout, default_data_dir


@click.command(
    cls=Command,
    examples=("gateway up", "gateway up --no-demo --port 8000", "gateway up --once --port 0"),
)
@click.option("--once", is_flag=True, help="Stop after the demonstration; 0 if all of it worked.")
@click.option("--no-demo", is_flag=True, help="Do not run the demonstration.")
@click.option(
    "--port",
    type=WholeNumber(0, 65_535, noun="port"),
    metavar="N",
    help="Of the api (8080); 0 takes any free one.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    default=default_data_dir,
    help="Where everything is kept (.data).",
)
def up(once: bool, no_demo: bool, port: int | None, data_dir: Path) -> int:
    """Start everything on this machine and show one job end to end.

    The profile is development unless GATEWAY_PROFILE says production; stores of its own are started
    unless GATEWAY_STORE_URL and GATEWAY_BROKER_URL name others. Ctrl-C stops it.
    """
    if checkout() is None:
        raise CliError(
            "this comes with a checkout of the project; elsewhere run `gateway api`,"
            " `gateway relay`, `gateway worker` and `gateway delivery`"
        )
    # By name: nothing here imports from what people type.
    run = import_module("scripts.up").main
    code: int = run(once=once, demo=not no_demo, port=port, data_dir=data_dir)
    return code
