"""What both kinds of dead letters share on an operator's terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

OK, FAILED, PARTLY = 0, 1, 3
"""Exit codes."""


class ScriptError(Exception):
    """A sentence for whoever typed the command."""


def row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return one line of a table; a cell that is too wide moves the rest."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def say_end(shown: int, *, more: bool) -> None:
    """Say that a list is empty or cut off."""
    if shown == 0:
        print("No dead letters.")
    elif more:
        print(f"The oldest {shown} are shown; --limit N shows more.", file=sys.stderr)


def printable(text: str) -> str:
    """What came from outside must not steer the operator's terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
