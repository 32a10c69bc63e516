"""`gateway`: which commands there are, and how they end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from gateway.cli.command import Entry, Tree
from gateway.cli.output import INTERRUPTED, OK, USAGE, note

_SECTIONS: Final = {
    "Processes": {
        "up": Entry("gateway.cli.up:up", "Start everything on this machine"),
        "api": Entry("gateway.cli.roles:api", "Take jobs in over HTTP and answer for them"),
        "relay": Entry("gateway.cli.roles:relay", "Tell workers what to run"),
        "worker": Entry("gateway.cli.roles:worker", "Run jobs"),
        "delivery": Entry("gateway.cli.roles:delivery", "Send callbacks"),
    },
    "A running gateway": {
        "jobs": Entry("gateway.cli.jobs:jobs", "Submit work and follow it"),
        "deliveries": Entry("gateway.cli.deliveries:deliveries", "See what became of callbacks"),
        "dead-letters": Entry(
            "gateway.cli.deadletters:dead_letters", "See what failed, and put it right"
        ),
        "endpoints": Entry("gateway.cli.endpoints:endpoints", "See who is called back; pause it"),
        "secrets": Entry(
            "gateway.cli.secrets:secrets", "Show and change signing secrets; seal anew"
        ),
        "keys": Entry("gateway.cli.keys:keys", "Make, list and revoke API keys"),
    },
    "For who is called back": {
        "trigger": Entry("gateway.cli.trigger:trigger", "Send a sample callback to a URL"),
        "sign": Entry("gateway.cli.receivers:sign", "Make the headers of a callback"),
        "verify": Entry("gateway.cli.receivers:verify", "Tell whether a callback is genuine"),
    },
    "This installation": {
        "config": Entry("gateway.cli.configuration:configuration", "Check and show the settings"),
        "doctor": Entry("gateway.cli.doctor:doctor", "Say what is wrong and what to do"),
        "completion": Entry("gateway.cli.completion:completion", "Completion for a shell"),
    },
}


def _say_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from config.release import release

    click.echo(f"gateway {release()}")
    ctx.exit()


@click.command(
    cls=Tree,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`gateway COMMAND --help` shows examples of each. Commands that ask a gateway find the"
    " one that `gateway up` runs; GATEWAY_API_URL and GATEWAY_API_KEY name another. Exit codes:"
    " 0 done, 1 an error or nothing done, 2 wrong usage, 3 partly done, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_say_version,
    help="Say which version this is.",
)
def gateway() -> None:
    """Turn slow work into 202 Accepted, a signed callback, and a status to poll."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, or in that of this process; return the exit code."""
    return run(gateway, argv, "gateway")


def run(command: click.Command, argv: Sequence[str] | None, name: str) -> int:
    """Run `command` as a program called `name`; return the exit code."""
    arguments = None if argv is None else list(argv)
    try:
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        note(f"{name}: {error.format_message()}")
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else OK
