"""The commands there are, as the tests walk through them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gateway.cli.command import Command
from gateway.cli.main import gateway

Place = tuple[str, ...]


def everything() -> Iterator[tuple[Place, click.Command]]:
    """Yield every command and group with the words that name it, the top first."""
    yield (), gateway
    yield from _below((), gateway)


def commands() -> dict[Place, Command]:
    """Return what can be run, by the words that name it."""
    return {place: each for place, each in everything() if isinstance(each, Command)}


def _below(place: Place, group: click.Group) -> Iterator[tuple[Place, click.Command]]:
    context = click.Context(group, info_name="gateway")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*place, name), command
        if isinstance(command, click.Group):
            yield from _below((*place, name), command)
