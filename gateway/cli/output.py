"""What commands say: lines, tables, one JSON object a line for programs; and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import click

OK, FAILED, USAGE, PARTLY, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: done; an error, or nothing done; wrong usage; some of it done; Ctrl-C."""

_LABEL = 18


def printable(text: str) -> str:
    """Return `text` so that it cannot steer a terminal: what came from outside may try to."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def say(text: str = "") -> None:
    """Write lines of ours to standard output."""
    click.echo(text)


def note(text: str) -> None:
    """Write to standard error what is not part of the answer."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=True)


def say_json(document: object) -> None:
    """Write one line for a program."""
    click.echo(json.dumps(document, ensure_ascii=False))


def say_pretty(document: object) -> None:
    """Write JSON for people, escaped where it could steer their terminal."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    click.echo("\n".join(map(printable, text.split("\n"))))


def say_members(document: Mapping[str, Any], *, leave_out: Iterable[str] = ()) -> None:
    """Write what a document says, a member a line; what is null or empty is left out."""
    hidden = {"_links", *leave_out}
    for name, value in document.items():
        if name not in hidden and value is not None and value not in ("", {}, [], ()):
            click.echo(f"{printable(name):{_LABEL}} {cell(value)}")


def cell(value: object) -> str:
    """Return a value as it stands in a table or a line; `-` where there is none."""
    match value:
        case None | "":
            return "-"
        case str():
            return printable(value)
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return str(value)
        case _:
            return printable(json.dumps(value, ensure_ascii=False))


def row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return one line of a table; a cell that is too wide moves the rest."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def table(columns: Mapping[str, int], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield a heading and the lines as they come; nothing without lines.

    Args:
        columns: headings with their widths.
        rows: a value for each column.
    """
    widths = tuple(columns.values())
    lines = (row([cell(value) for value in values], widths) for values in rows)
    for first in lines:
        yield row(tuple(columns), widths)
        yield from chain([first], lines)


def say_all(
    found: Iterable[Any],
    columns: Mapping[str, int],
    cells: Callable[[Any], Sequence[object]],
    *,
    as_json: bool,
) -> int:
    """Write things as they come, as a table or one JSON document a line; return how many.

    Args:
        found: their documents.
        columns: headings of the table with their widths.
        cells: returns the values of a line.
        as_json: whether a program reads it.
    """
    if as_json:
        return sum(1 for _ in map(say_json, found))
    lines = sum(1 for _ in map(say, table(columns, map(cells, found))))
    return max(0, lines - 1)  # without the heading


def done_of(done: int, asked: int) -> int:
    """Return the exit code when `done` of the things `asked` for could be done."""
    if done == asked:
        return OK
    return PARTLY if done else FAILED
