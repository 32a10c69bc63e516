"""`gateway completion`: what a shell has to know to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from gateway.cli.command import Command
from gateway.cli.output import OK, say

_KINDS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    cls=Command,
    examples=(
        'eval "$(gateway completion bash)"',
        "gateway completion zsh > ~/.zfunc/_gateway",
        "gateway completion fish > ~/.config/fish/completions/gateway.fish",
    ),
)
@click.argument("shell", type=click.Choice(list(_KINDS)), help="Which shell.")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print what makes a shell complete commands and options.

    Put the line of the first example in ~/.bashrc; the other shells look into these folders.
    """
    root = ctx.find_root()
    name = root.info_name or "gateway"
    say(_KINDS[shell](root.command, {}, name, f"_{name}_COMPLETE".upper()).source())
    return OK
