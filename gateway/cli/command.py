"""What a command of `gateway` is: help that teaches by example, and an end that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import click

from gateway.cli.output import FAILED, note

_OURS = frozenset({"config", "delivery", "gateway"})


class CliError(Exception):
    """A sentence for whoever typed the command, naming the step that went wrong."""


class Command(click.Command):
    """A command with examples in its help, whose callback returns the exit code.

    Attributes:
        examples: command lines as they are typed; a test runs each of them.
    """

    def __init__(self, *args: Any, examples: Sequence[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples below everything else."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; say in a sentence what went wrong, and end with 1."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001  nobody who types a command wants a traceback
            note(f"{ctx.command_path}: {sentence_of(error)}")
            return FAILED


class Role(Command):
    """A process that stays: what it does not expect ends it with a traceback in its log."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the process."""
        return click.Command.invoke(self, ctx)


class Group(click.Group):
    """Commands about one noun."""

    command_class = Command


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not loaded yet: where it is, and what it is for."""

    place: str
    summary: str


class Tree(click.Group):
    """The top of the command line: its commands are loaded when they are asked for.

    Args:
        sections: the commands by heading and name, in the order they are shown in.
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, Entry]], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._sections = sections
        self._entries = {name: entry for each in sections.values() for name, entry in each.items()}

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(self._entries)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the command of that name; None when there is none."""
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry.place.partition(":")
        return cast("click.Command", getattr(import_module(module), name))

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command is for, without loading any."""
        for title, entries in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in entries.items()])


def sentence_of(error: Exception) -> str:
    """Return what `error` has to say to people."""
    match error:
        case _ if type(error).__module__.partition(".")[0] in _OURS:
            return str(error)
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}"
        case OSError():
            return str(error) or type(error).__name__
        case _:
            return f"a fault of this program: {type(error).__name__}: {error}"
